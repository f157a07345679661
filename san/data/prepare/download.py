"""Do the steps that tasks need: let TFDS fetch and build data sets, then pack."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

from san.data.prepare.pack_task import Progress, no_progress, pack_splits
from san.data.prepare.sources import find_source, tfds
from san.data.prepare.steps import Action, Paths, Step, describe_error
from san.errors import SanError
from san.installation import command, install_command

REASON_LENGTH = 300  # characters of TFDS's own message

Say = Callable[[str], None]


def prepare_all(
    steps: Sequence[Step],
    paths: Paths,
    image_size: int,
    force: bool = False,
    jobs: int = 1,
    progress: Progress = no_progress,
    say: Say = print,
) -> list[str]:
    """Do the steps; return what went wrong, a text for each task.

    force: see `pack_splits`. jobs: data sets that TFDS builds at a time. A task that fails does not
    keep the others from being prepared.
    """
    failed = _build_datasets(steps, paths, jobs, say)
    errors = list(failed.values())
    for step in steps:
        if step.action is Action.DONE or step.dataset in failed:
            continue
        if step.action is Action.MANUAL:
            errors.append(f"{step.name}: {step.note}")
            continue
        try:
            done = _pack(step, paths, image_size, force, progress)
        except Exception as error:  # whatever is wrong with one source, the other tasks go on
            text = describe_error(error)
            # Most errors name the image, and with it the task.
            errors.append(text if step.name in text else f"{step.name}: {text}")
            continue
        say(f"{step.name}: {'; '.join(done)}")
    return errors


def _pack(step: Step, paths: Paths, image_size: int, force: bool, progress: Progress) -> list[str]:
    """Pack a task from the source that was found, or from TFDS's copy."""
    source = step.source
    if source is None:
        source = find_source(step.task, paths.tfds)
    return pack_splits(
        step.suite,
        step.task,
        source,
        paths.root,
        step.resize,
        image_size,
        force,
        progress,
    )


def _build_datasets(steps: Sequence[Step], paths: Paths, jobs: int, say: Say) -> dict[str, str]:
    """Let TFDS fetch and prepare what is missing; return error texts by data set."""
    missing = {step.dataset: step for step in steps if step.dataset is not None}
    if not missing:
        return {}
    if jobs == 1:
        outcomes = _build_in_turn(missing, paths)
    else:
        outcomes = _build_in_processes(missing, paths, jobs, say)
    errors = {}
    for dataset, error in outcomes:
        if error is not None:
            errors[dataset] = _explain(missing[dataset], paths, error)
    return errors


Outcomes = Iterator[tuple[str, BaseException | None]]  # of each data set; None if it was built


def _build_in_turn(missing: Mapping[str, Step], paths: Paths) -> Outcomes:
    """Build data sets in this process."""
    for dataset, step in missing.items():
        try:
            tfds.build(dataset, paths.tfds, paths.manual_dir(step.task))
        except Exception as error:  # whatever TFDS and its transports raise
            yield dataset, error
        else:
            yield dataset, None


def _build_in_processes(missing: Mapping[str, Step], paths: Paths, jobs: int, say: Say) -> Outcomes:
    """Build `jobs` data sets at a time, each in a process of its own."""
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        running: dict[Future[None], str] = {}
        for dataset, step in missing.items():
            future = pool.submit(
                tfds.build,
                dataset,
                paths.tfds,
                paths.manual_dir(step.task),
            )
            running[future] = dataset
        for future in as_completed(running):
            dataset = running[future]
            error = future.exception()
            outcome = "prepared by TFDS" if error is None else "failed"
            say(f"{dataset}: {outcome}")
            yield dataset, error


def _explain(step: Step, paths: Paths, error: BaseException) -> str:
    """Say what was tried for a task, and which files to put where."""
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{step.name}: {error} ({install_command('prepare')} has all that building "
            "needs; best in an environment of its own)"
        )
    source = tfds.source_of(step.task)
    dataset = tfds.dataset_name(step.task)
    versions = " or ".join(map(str, source.major_versions))
    folder = paths.manual_dir(step.task)
    files = "none"
    if folder.is_dir():
        files = ", ".join(path.name for path in folder.iterdir())
    wanted = ", ".join(_wanted_files(step))
    return (
        f"{step.name} could not be built ({_first_line(error)}). Tried:\n"
        f"    a prepared copy {paths.tfds / source.builder}/*: none of version {versions}\n"
        f"    files in {folder}: {files}\n"
        f"    TFDS's download of {dataset}\n"
        f"Either put {wanted} into {folder} and run this again, or give another copy with --from "
        f"({command('prepare')} --help lists the layouts)."
    )


def _wanted_files(step: Step) -> Sequence[str]:
    """Return the names of the files from which TFDS builds a data set."""
    if step.task.manual_files:
        return step.task.manual_files
    try:
        return tfds.file_names(tfds.dataset_name(step.task))
    except Exception:  # TFDS cannot even say what it would fetch
        return ["its files"]


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with its kind where it is not one of ours."""
    kind = type(error).__name__
    lines = str(error).strip().splitlines()
    reason = lines[0][:REASON_LENGTH] if lines else kind
    return reason if isinstance(error, SanError) else f"{kind}: {reason}"
