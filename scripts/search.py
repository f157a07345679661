"""Search the hyper-parameters of every method alike: see san/commands/search.py."""

from san.commands import run

if __name__ == "__main__":
    run("search")
