"""Many runs: planned, shared out, resumed."""
