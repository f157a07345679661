"""Do every run of a suite, then print the table: see san/commands/reproduce.py."""

from san.commands import run

if __name__ == "__main__":
    run("reproduce")
