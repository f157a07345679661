"""`python -m san.commands PROGRAM ...`: how processes of a sweep start one another."""

from san.commands import main

if __name__ == "__main__":
    main()
