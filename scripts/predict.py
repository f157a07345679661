"""Answer for images with a saved adapter: see san/commands/predict.py."""

from san.commands import run

if __name__ == "__main__":
    run("predict")
