"""What a record says of its run, in lines for a terminal; and the command that repeats it."""

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from san import record_names, settings
from san.chance import near_chance
from san.installation import command_words
from san.record import Record
from san.record_file import find_completed
from san.runtime.formatting import first_line_of_error, format_bytes, format_duration
from san.score import ClassScore, Score

WIDTH = 100
_LABEL_WIDTH = 10
_TEXT_INDENT = 4 + _LABEL_WIDTH + 1
_GOES_ON = " \\"
_CONTINUED = " " * (_TEXT_INDENT + 1)
_RECIPE_KEYS = ("epochs", "batch_size", "optimizer", "lr", "weight_decay")
_CLASSES_LISTED = 3  # of the worst, and of the best
_COMMIT_DIGITS = 12
_UNKNOWN = "not known"


def labelled(label: str, text: str) -> str:
    """Return a text behind its label, in lines that fit a terminal."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"    {label:<{_LABEL_WIDTH}} ",
        subsequent_indent=" " * _TEXT_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def labelled_command(label: str, words: Sequence[str]) -> str:
    """Return a command behind its label; its lines end in the backslash that a shell joins them at.

    words: before they are quoted.
    """
    written = []
    line = f"    {label:<{_LABEL_WIDTH}}"
    for word in map(shlex.quote, words):
        longer = f"{line} {word}"
        if len(longer) > WIDTH - len(_GOES_ON):
            written.append(line + _GOES_ON)
            longer = f"{_CONTINUED} {word}"
        line = longer
    written.append(line)
    return "\n".join(written)


def describe_record(r: Record, path: Path, is_counted: bool) -> Iterator[str]:
    """Yield what a record says.

    path: where it belongs. is_counted: whether the value of its cell is made of it.
    """
    yield ""
    yield f"  seed {r.seed}: {_result(r)}"
    if r.score is not None and not is_counted:
        yield labelled("counted", "no: a newer run of this seed is")
    yield from _place(r, path)
    yield labelled("settings", _settings(r))
    yield from _scores(r)
    yield from _classes(r)
    yield from _costs(r)
    yield labelled("weights", f"{r.backbone}, {r.weights}")
    yield labelled("data", _data(r))
    if r.data.forced:
        yield labelled("FORCED", r.data.forced)
    yield labelled("made by", ", ".join(_makers(r)))
    if r.error:
        yield labelled("error", first_line_of_error(r.error))
    for warning in r.warnings:
        yield labelled("warning", warning)
    yield labelled_command("reproduce", rerun_words(r, path))


def rerun_words(r: Record, path: Path) -> list[str]:
    """Return the command that repeats a run, word by word.

    Where its record still exists and would be taken for the answer, `force=true` is the last.
    """
    words = [*command_words("train"), *record_names.rerun_words(r)]
    if find_completed(path) is not None:
        words.append("force=true")
    return words


def _line(label: str, text: str) -> str:
    """Return a text behind its label in one line, however long: a path is not to be broken."""
    return f"    {label:<{_LABEL_WIDTH}} {text}"


def _result(r: Record) -> str:
    """Return the score of a run that counts, or how it ended."""
    if r.score is None:
        return r.status
    return f"{_score(r.score)} after epoch {r.score.epoch}, chosen on {r.selected_on}"


def _score(score: Score | ClassScore) -> str:
    """Return a share of right answers, and what it is the share of."""
    percent = 100 * score.correct / score.total
    return f"{percent:.2f} % ({score.correct} of {score.total})"


def _place(r: Record, path: Path) -> Iterator[str]:
    """Yield where the record is, which it is, and when the run began and ended."""
    if _exists(path):
        yield _line("record", str(path))
    else:
        yield _line("record", f"not at {path}")
    identity = f"{r.id} of {r.created}"
    if r.started is not None:
        identity += f", begun {r.started}"
    yield _line("", identity)


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a record that was made by hand may have a name that no file can have
        return False


def _settings(r: Record) -> str:
    """Return the recipe of a run, and how it departs from its suite's."""
    words = []
    for key in _RECIPE_KEYS:
        if key in r.config:
            words.append(f"{key}={r.config[key]}")
    recipe = ", ".join(words) or _UNKNOWN
    if not r.variant:
        return recipe
    return f"{recipe}; not the suite's: {settings.shorten_variant(r.variant)}"


def _scores(r: Record) -> Iterator[str]:
    """Yield when a run was evaluated, the score that does not count, and that on val."""
    if r.curve:
        epochs = [score.epoch for score in r.curve]
        text = f"on {r.evaluated_on} {_epochs(epochs)}"
        yield labelled("evaluated", text + _other_score(r))
    if r.score is not None and r.score.loss is not None:
        text = f"{r.score.loss:.4f}, the mean cross-entropy on {r.evaluated_on}"
        yield labelled("loss", text)
    score = r.validation
    if score is not None:
        yield labelled("validation", f"{_score(score)} after epoch {score.epoch}")


def _other_score(r: Record) -> str:
    """Return the best score where the last one counts, and the last where the best does."""
    name = "best"
    other = r.best
    if r.score != r.last:
        name = "last"
        other = r.last
    if other is None or other == r.score:
        return ""
    return f"; {name} {_score(other)} after epoch {other.epoch}"


def _epochs(epochs: Sequence[int]) -> str:
    """Return which epochs, ascending, in few words."""
    first = epochs[0]
    if len(epochs) == 1:
        return f"once, after epoch {first}" if first else "without training"
    step = epochs[1] - first
    regular = list(range(first, epochs[-1] + 1, step))
    if len(epochs) == 2 or list(epochs) != regular:
        listed = ", ".join(map(str, epochs))
        return f"after epochs {listed}"
    steps = f" in steps of {step}" if step > 1 else ""
    return f"after epochs {first} to {epochs[-1]}{steps}"


def _classes(r: Record) -> Iterator[str]:
    """Yield the classes that were answered worst and best, or all; and if none was learned."""
    alarm = near_chance(r.classes)
    if alarm is not None:
        yield labelled("chance", alarm)
    scored = [each for each in r.classes or [] if each.total]
    scored.sort(key=_share)
    if len(scored) > 2 * _CLASSES_LISTED:
        worst = scored[:_CLASSES_LISTED]
        best = scored[-_CLASSES_LISTED:]
        yield labelled("worst", _list_classes(worst))
        yield labelled("best", _list_classes(best[::-1]))
    elif scored:
        yield labelled("classes", _list_classes(scored))


def _share(score: ClassScore) -> float:
    return score.correct / score.total


def _list_classes(classes: Sequence[ClassScore]) -> str:
    """Return classes and their scores; a class may have a comma in its name."""
    texts = [f"{each.name} {_score(each)}" for each in classes]
    return "; ".join(texts)


def _costs(r: Record) -> Iterator[str]:
    """Yield trained parameters, and what the run took, as far as that is known."""
    if r.params is not None:
        count = f"{r.params.trainable:,} parameters"
        yield labelled("trained", f"{count}, {r.params.head:,} of them the head's")
    costs = list(_known_costs(r))
    if costs:
        yield labelled("cost", ", ".join(costs))


def _known_costs(r: Record) -> Iterator[str]:
    if r.device_hours is not None:
        seconds = 3600 * r.device_hours
        yield f"{format_duration(seconds)} of device time"
    if r.seconds is not None and r.seconds.fit is not None:
        yield f"{format_duration(r.seconds.fit)} of training steps"
    if r.peak_bytes is not None:
        yield f"{format_bytes(r.peak_bytes)} peak memory"
    if r.joules is not None:
        yield f"{r.joules:,.0f} J"
    if r.adapter_bytes is not None:
        yield f"adapter of {format_bytes(r.adapter_bytes)}"


def _data(r: Record) -> str:
    """Return the source of the images, and the fingerprints of the splits."""
    source = r.data.source or f"source {_UNKNOWN}"
    train = r.data.train or _UNKNOWN
    evaluate = r.data.evaluate or _UNKNOWN
    return f"{source}; train {train}, {r.evaluated_on} {evaluate}"


def _makers(r: Record) -> Iterator[str]:
    """Yield commit, and whether files differed from it; versions, device and host."""
    commit = r.code.commit or _UNKNOWN
    changes = " with changes" if r.code.dirty else ""
    yield f"commit {commit[:_COMMIT_DIGITS]}{changes}"
    for package, version in r.versions.items():
        yield f"{package} {version}"
    if r.device.name is not None:
        several = r.device.count > 1
        count = f"{r.device.count} x " if several else ""
        yield f"on {count}{r.device.name}"
    if r.host is not None:
        yield f"host {r.host}"
