"""Get a task's images and pack them for training: verified, memory-mapped, without TensorFlow afterwards.

python scripts/prepare.py vtab --plan                      # what is there, what has to be downloaded, how large
python scripts/prepare.py vtab/cifar vtab/svhn             # download and build with TFDS (the extra `prepare`)
python scripts/prepare.py vtab --from ~/vtab-1k.zip        # or from what you have; nothing is unpacked
python scripts/prepare.py fgvc/cub --from ~/CUB_200_2011

--from takes a folder or a .zip, and finds out which of these it is:
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from san.data.pack import Example
from san.data.prepare import download
from san.data.prepare.sources import LAYOUTS
from san.data.resize import RESIZE
from san.tasks import select_tasks, suite_names


def progress(examples: Iterable[Example], title: str, total: int) -> Iterable[Example]:
    """Show a bar on a terminal, a line now and then in a log."""
    every = 0.2 if sys.stderr.isatty() else 15
    return tqdm(
        examples, desc=title, total=total, unit="img", mininterval=every, delay=2, leave=False
    )


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    layouts = "".join(f"  {layout}\n" for layout in LAYOUTS)
    parser = argparse.ArgumentParser(
        description=__doc__ + layouts, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tasks", nargs="+", metavar="SUITE[/TASK]", help=f"suites: {', '.join(suite_names())}"
    )
    parser.add_argument(
        "--from",
        dest="given",
        type=Path,
        metavar="PATH",
        help="a folder or .zip that has the images",
    )
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="packed images go here (default: data)"
    )
    parser.add_argument("--tfds", type=Path, help="TFDS copies, found or made (default: ROOT/tfds)")
    parser.add_argument(
        "--manual",
        type=Path,
        help="files brought by hand, one folder a builder (default: ROOT/manual)",
    )
    parser.add_argument("--resize", default=None, choices=RESIZE, help="default: the suite's")
    parser.add_argument(
        "--side", type=int, default=224, help="pixels, where images are resized (default: 224)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="data sets that TFDS builds at a time"
    )
    parser.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    parser.add_argument(
        "--force",
        action="store_true",
        help="pack although counts or class names are not the benchmark's",
    )
    return parser.parse_args()


def main() -> None:
    """Plan, check the disk, build, pack; say what failed and exit with 1 if anything did."""
    args = arguments()
    pairs = select_tasks(args.tasks)
    places = download.Paths(
        args.root, args.tfds or args.root / "tfds", args.manual or args.root / "manual", args.given
    )
    steps = download.plan(pairs, places, args.resize, args.side)
    for step in steps:
        print(f"{step.action:6} {step.name}: {step.note}")
    line, room = download.check_disk(steps, places, args.side)
    print(line, flush=True)
    if args.plan:
        return
    if not room:
        raise OSError(
            f"Not enough disk: {line}. Prepare fewer tasks at a time, or choose --root and --tfds."
        )
    errors = download.prepare_all(steps, places, args.side, args.force, args.jobs, progress, print)
    for error in errors:
        print(f"\nError: {error}", file=sys.stderr)
    if errors:
        sys.exit(
            f"\n{len(errors)} of {len(steps)} tasks could not be prepared. Run this again to go on."
        )


if __name__ == "__main__":
    try:
        main()
    except (LookupError, ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted: splits that are whole stay; run this again to go on.")
