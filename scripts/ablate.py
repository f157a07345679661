"""Ablate a method: see san/commands/ablate.py."""

from san.commands import run

if __name__ == "__main__":
    run("ablate")
