"""Write the tables of all suites that have records: see san/commands/tables.py."""

from san.commands import run

if __name__ == "__main__":
    run("tables")
