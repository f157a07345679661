"""Fine-tune a pre-trained backbone with one method on one task: see san/commands/train.py."""

from san.commands import run

if __name__ == "__main__":
    run("train")
