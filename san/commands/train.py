"""Fine-tune a pre-trained backbone with one method on one task, and write one record.

python train.py                                    # SAN on demo/digits, small backbone, offline
python train.py method=ssf data=demo/count seed=1  # another cell
python train.py -m method=linear,san seed=0,1,2    # several
"""

import logging
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from san import compose
from san.errors import SanError
from san.installation import CONFIGS
from san.renamed_keys import current_words

log = logging.getLogger(__name__)
WHEN_INTERRUPTED = "Interrupted: no record was written for the run in flight."


def main() -> None:
    """Compose the runs of the command line and do them."""
    compose.register()
    sys.argv[1:] = current_words(sys.argv[1:])
    start = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
    start(do_run)()


def do_run(config: DictConfig) -> float | None:
    """Do the run of a configuration; return the accuracy in percent.

    A launcher of Hydra pickles this function by its name.
    """
    from san.run import run  # noqa: PLC0415  (torch is slow; --help needs none)

    try:
        result = run(*compose.resolve(config))
    except SanError as error:
        # Of several runs Hydra says the first error alone.
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            log.error("%s", error)
        raise
    return None if result.score is None else result.score.accuracy
