"""The search of hyper-parameters: one space for all methods and tasks, chosen on val200."""
