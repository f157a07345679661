"""Check all packed forms of tasks, in words, with a contact sheet of each."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from san.data.packed_task import PackedTask
from san.data.prepare.card import class_names
from san.data.prepare.contact_sheet import draw_sheet
from san.data.verify import verify
from san.runtime.paths import expand_path
from san.tasks import Task

MARKS = {
    True: "ok   ",
    False: "WRONG",
    None: "?    ",
}

Say = Callable[[str], None]


class Outcome(Enum):
    """What checking one packed form gave."""

    WRONG = auto()
    GOOD = auto()
    VERIFIED = auto()  # good, and its ids are the benchmark's


@dataclass(frozen=True)
class Summary:
    """How many tasks were looked for below `root` and are packed; outcomes: of the packed forms."""

    root: Path
    tasks: int
    packed: int
    outcomes: Counter[Outcome]

    @property
    def is_good(self) -> bool:
        """Whether something is packed, and nothing is wrong."""
        return self.packed > 0 and self.outcomes[Outcome.WRONG] == 0

    def __str__(self) -> str:
        return (
            f"{self.packed} of {self.tasks} tasks are packed below {self.root}: "
            f"{self.outcomes[Outcome.WRONG]} wrong, "
            f"{self.outcomes[Outcome.VERIFIED]} verified by their ids."
        )


def packed_folders(task: Task, root: Path) -> list[Path]:
    """Return the packed forms of a task below `root`, sorted.

    Raises FileAccessError where they may not be looked at.
    """
    found = []
    for folder in expand_path(root / task.suite / task.name).glob("*"):
        if folder.is_dir() and not folder.name.startswith("."):  # hidden: being written
            found.append(folder)
    return sorted(found)


def verify_tasks(tasks: Sequence[Task], root: Path, figures: Path | None, say: Say) -> Summary:
    """Check what is packed of each task below `root`, pixels included, and say what was found.

    figures: where to draw a contact sheet of each form that is not wrong; None for nowhere.
    """
    packed = 0
    outcomes = Counter[Outcome]()
    for task in tasks:
        folders = packed_folders(task, root)
        if not folders:
            say(f"{task.suite}/{task.name}: not packed")
            continue
        packed += 1
        for folder in folders:
            outcome = _verify_form(task, folder, say)
            outcomes[outcome] += 1
            if figures is None:
                continue
            if outcome is Outcome.WRONG:
                say("  no contact sheet of data that is wrong")
            else:
                path = _draw_first_split(task, folder, figures)
                say(f"  {path}")
    return Summary(root, len(tasks), packed, outcomes)


def _verify_form(task: Task, folder: Path, say: Say) -> Outcome:
    """Check one packed form, and say what was found."""
    findings = verify(task, folder)
    say(f"{task.suite}/{task.name} ({folder.name})")
    for finding in findings:
        say(f"  {MARKS[finding.good]} {finding.text}")
    if any(finding.good is False for finding in findings):
        return Outcome.WRONG
    membership = PackedTask.open(task, folder).membership()
    return Outcome.VERIFIED if membership.good else Outcome.GOOD


def _draw_first_split(task: Task, folder: Path, figures: Path) -> Path:
    """Draw the contact sheet of the first split of a packed form; return its path."""
    packed = PackedTask.open(task, folder)
    first = packed.parts("+".join(task.splits))[0]
    path = figures / f"{task.name}.png"
    draw_sheet(
        task,
        class_names(packed),
        packed.load_part(first),
        path,
    )
    return path
