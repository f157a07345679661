"""Get a task's images and pack them for training: see san/commands/prepare.py."""

from san.commands import run

if __name__ == "__main__":
    run("prepare")
