"""Get a task's images and pack them for training, which then does without TensorFlow.

python scripts/prepare.py vtab --plan                # what there is, and what has to be downloaded
python scripts/prepare.py vtab/cifar vtab/svhn       # download and build with TFDS
python scripts/prepare.py vtab --from ~/vtab-1k.zip  # or from what you have; nothing is unpacked
python scripts/prepare.py fgvc/cub --from ~/CUB_200_2011

Building with TFDS needs the extra `prepare`. --from takes a folder or a .zip, and finds out which
of these it is:
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from san.data.pack import Example
from san.data.prepare.download import prepare_all
from san.data.prepare.sources import LAYOUTS
from san.data.prepare.steps import Paths, check_disk, plan_steps
from san.data.resize import RESIZE
from san.installation import localize_commands
from san.runtime.paths import expand_path
from san.tasks import select_tasks, suite_names

WHEN_INTERRUPTED = "Interrupted: complete splits stay. Run this again to go on."
REFRESH_S = 0.2  # of the bar on a terminal
LOG_EVERY_S = 15  # where there is no terminal


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    layouts = "".join(f"  {layout}\n" for layout in LAYOUTS)
    parser = argparse.ArgumentParser(
        description=localize_commands(__doc__ or "") + layouts,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    suites = ", ".join(suite_names())
    add("tasks", nargs="+", metavar="SUITE[/TASK]", help=f"suites: {suites}")
    add(
        "--from",
        dest="user_path",
        type=Path,
        metavar="PATH",
        help="a folder or .zip that has the images",
    )
    add(
        "--root",
        type=Path,
        default=Path("data"),
        help="packed images go here (default: data)",
    )
    add("--tfds", type=Path, help="TFDS copies, found or made (default: ROOT/tfds)")
    add(
        "--manual",
        type=Path,
        help="files brought by hand, one folder a builder (default: ROOT/manual)",
    )
    add("--resize", default=None, choices=RESIZE, help="default: the suite's")
    add(
        "--side",
        type=int,
        default=224,
        help="pixels, where images are resized (default: 224)",
    )
    add("--jobs", type=int, default=os.cpu_count(), help="data sets that TFDS builds at a time")
    add("--plan", action="store_true", help="say what would be done, and stop")
    add(
        "--force",
        action="store_true",
        help="pack although counts or class names are not the benchmark's, splits share images, or "
        "the disk may be too small (its need is known by the benchmark's counts alone)",
    )
    return parser.parse_args()


def _show_progress(examples: Iterable[Example], title: str, total: int) -> Iterable[Example]:
    """Show a bar on a terminal, a line now and then in a log."""
    return tqdm(
        examples,
        desc=title,
        total=total,
        unit="img",
        mininterval=REFRESH_S if sys.stderr.isatty() else LOG_EVERY_S,
        delay=2,
        leave=False,
    )


def main() -> None:
    """Plan, check the disk, build, pack; say what failed and exit with 1 if anything did."""
    args = parse_arguments()
    root = expand_path(args.root)
    paths = Paths(
        root=root,
        tfds=expand_path(args.tfds or root / "tfds"),
        manual=expand_path(args.manual or root / "manual"),
        user_path=args.user_path,
    )
    steps = plan_steps(select_tasks(args.tasks), paths, args.resize, args.side)
    for step in steps:
        print(f"{step.action:6} {step.name}: {step.note}")
    disk = check_disk(steps, paths, args.side)
    print(disk.text, flush=True)
    if args.plan:
        return
    disk.require(force=args.force)
    errors = prepare_all(
        steps,
        paths,
        args.side,
        force=args.force,
        jobs=args.jobs,
        progress=_show_progress,
        say=print,
    )
    for error in errors:
        print(f"\nError: {error}", file=sys.stderr)
    if errors:
        sys.exit(
            f"\n{len(errors)} of {len(steps)} tasks could not be prepared. Run this again to go on."
        )
