"""Fine-tune a pre-trained backbone with one method on one task, and write one record.

python train.py                                    # SAN on demo/digits, small backbone, offline
python train.py method=ssf data=demo/count seed=1  # another cell
python train.py -m method=linear,san seed=0,1,2    # several
"""

import sys

import hydra
from omegaconf import DictConfig

from san import cli, compose
from san.renamed_keys import current_words

compose.register()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(config: DictConfig) -> float | None:
    """Compose the configuration and run it; return the accuracy in percent."""
    from san.run import run  # noqa: PLC0415  (torch is slow; --help needs none)

    result = run(*compose.resolve(config))
    return None if result.score is None else result.score.accuracy


if __name__ == "__main__":
    sys.argv[1:] = current_words(sys.argv[1:])
    cli.main(main, "Interrupted: no record was written for the run in flight.")
