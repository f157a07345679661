"""The command line of the program `tables`."""

import argparse
from pathlib import Path

from san.errors import InvalidValueError
from san.report.paper import PaperOptions
from san.report.selection import Sort, Wanted
from san.tasks import suite_names


class Arguments(argparse.Namespace):
    """The command line, typed."""

    suite: list[str]
    backbone: str | None
    cell: list[str] | None
    style: str
    rows: list[str] | None
    published: list[str] | None
    columns: list[str] | None
    sort: Sort
    reference: str | None
    decimals: int
    spread: bool
    cost: bool
    transpose: bool
    name: str
    wandb: bool
    wandb_project: str | None
    results: Path

    @property
    def records(self) -> Path:
        """Where the records are."""
        return self.results / "records"

    @property
    def wanted(self) -> Wanted:
        """Which rows and columns are shown."""
        return Wanted(self.rows, self.published, self.columns, self.sort)

    @property
    def paper(self) -> PaperOptions:
        """How the table for a paper looks."""
        return PaperOptions(
            decimals=self.decimals,
            with_spread=self.spread,
            with_cost=self.cost,
            is_transposed=self.transpose,
        )


def parse_arguments(description: str | None) -> Arguments:
    """Parse the command line of the program `tables`."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "suite",
        nargs="*",
        help=f"default: all with records; of {', '.join(suite_names())}; or folder/TASK",
    )
    parser.add_argument(
        "--backbone",
        help="of the suites that are named, also one that nothing was run with yet",
    )
    parser.add_argument(
        "--cell",
        nargs=3,
        metavar=("SUITE", "ROW", "TASK"),
        help="say where a number comes from: names as tables print them, or keys",
    )
    parser.add_argument(
        "--style",
        choices=("everyday", "paper"),
        default="everyday",
        help="print Markdown with the verdict, or LaTeX and draw PDF as well; both are written",
    )
    _add_choices(parser)
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="log them as one more W&B run of each suite, too",
    )
    parser.add_argument("--wandb-project", help="of these runs: as logger.project of train.py")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="where records/ and tables/ are",
    )
    return parser.parse_args(namespace=Arguments())


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Add what is shown of a table."""
    parser.add_argument("--rows", nargs="+", help="of ours: methods or names of rows")
    parser.add_argument("--published", nargs="+", help="names of published rows, `all` or `none`")
    parser.add_argument("--columns", nargs="+", help="tasks, groups, `tasks` or `means`")
    parser.add_argument(
        "--means-only",
        dest="columns",
        action="store_const",
        const=["means"],
        help="the same as --columns means: fits one column of a page",
    )
    parser.add_argument(
        "--sort",
        type=Sort,
        choices=list(Sort),
        default=Sort.MEAN,
        help="the best row first (default), or in the order of the suite",
    )
    parser.add_argument(
        "--name",
        default="",
        help="a table of --rows alone, with a verdict on them, in files of this name",
    )
    parser.add_argument("--reference", help="the row that all are compared with, not the leader")
    parser.add_argument("--decimals", type=int, choices=(1, 2), default=1, help="in LaTeX")
    parser.add_argument("--spread", action="store_true", help="± over seeds in LaTeX, too")
    parser.add_argument("--cost", action="store_true", help="device-hours, energy in LaTeX, too")
    parser.add_argument("--transpose", action="store_true", help="methods across in LaTeX")


def refuse_beside_cell(args: Arguments) -> None:
    """Raise InvalidValueError on an option that has nothing to say of one cell."""
    given = {
        "a suite": args.suite,
        "--rows": args.rows,
        "--published": args.published,
        "--columns": args.columns,
        "--reference": args.reference,
        "--name": args.name,
        "--style paper": args.style == "paper",
        "--sort": args.sort is not Sort.MEAN,
        "--decimals": args.decimals != 1,
        "--spread": args.spread,
        "--cost": args.cost,
        "--transpose": args.transpose,
        "--wandb": args.wandb,
    }
    ignored = [name for name, value in given.items() if value]
    if ignored:
        raise InvalidValueError(
            f"{', '.join(ignored)} came beside --cell; --backbone and --results are allowed. Leave "
            "it out: SUITE, ROW and TASK of --cell say all."
        )
