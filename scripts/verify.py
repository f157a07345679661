"""Verify that packed data is what its manifest says: see san/commands/verify.py."""

from san.commands import run

if __name__ == "__main__":
    run("verify")
