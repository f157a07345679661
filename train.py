"""Fine-tune a pre-trained backbone with one method on one task, and write one record.

python train.py                                     # SAN on demo/digits with the small backbone, offline
python train.py method=ssf data=demo/count seed=1   # another cell
python train.py -m method=linear,san seed=0,1,2     # several
"""

import hydra
from omegaconf import DictConfig, OmegaConf

from san import cli, compose

compose.register_tasks()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Compose the configuration and run it; return the accuracy in percent."""
    from san.run import run  # noqa: PLC0415  (torch takes seconds that --help and completion do without)

    return run(OmegaConf.to_container(cfg, resolve=True), compose.user_overrides())  # type: ignore[arg-type]


if __name__ == "__main__":
    cli.run(main)
