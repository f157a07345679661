"""Where a number of a table comes from: its records, their settings, and the commands that repeat it."""

import shlex
from collections.abc import Iterator, Sequence

from san import methods
from san.errors import choose
from san.record import Record
from san.report import published
from san.tasks import load_suite


def explain_cell(suite: str, method: str, task: str, records: Sequence[Record]) -> Iterator[str]:
    """Yield what is known of a cell, ours and published; raise LookupError with the nearest names on an unknown one."""
    row = load_suite(suite)
    row.task(task), choose(method, methods.method_names(), "method")
    found = [r for r in records if (r.suite, r.method, r.task) == (suite, method, task)]
    yield f"{suite}/{task} {method}: {len(found)} records"
    for r in sorted(found, key=lambda r: (r.backbone, r.variant, r.protocol, r.seed, r.created)):
        yield from describe_record(r)
    for backbone in sorted({row.backbone, *(r.backbone for r in found)}):
        yield from describe_published(suite, method, task, backbone)


def describe_record(r: Record) -> Iterator[str]:
    """Yield what a record says."""
    score = f"{r.accuracy:.2f} % ({r.point.correct} of {r.point.total})" if r.point else r.status
    yield f"\n{r.id}  seed {r.seed}  {score}, epoch chosen on {r.selected_on}, {r.created}"
    recipe = ", ".join(
        f"{key}={r.config.get(key)}"
        for key in ("epochs", "batch_size", "optimizer", "lr", "weight_decay")
    )
    commit = str(r.code.get("commit"))[:12] + (" with changes" if r.code.get("dirty") else "")
    yield f"  settings   {recipe}" + (f"; {r.variant}" if r.variant else "")
    yield f"  weights    {r.backbone}, {r.weights}"
    data = {name: r.data.get(name) or "unknown" for name in ("source", "train", "evaluate")}
    yield f"  data       {data['source']}; train {data['train']}, {r.evaluated_on} {data['evaluate']}"
    if r.data.get("forced"):
        yield f"  FORCED     {r.data['forced']}"
    versions = ", ".join(f"{name} {version}" for name, version in r.versions.items())
    yield f"  made by    commit {commit}, {versions}, on {r.device.get('name')}"
    if r.error:
        yield f"  error      {r.error.strip().splitlines()[-1]}"
    yield f"  again      {rerun_command(r)}"


def rerun_command(r: Record) -> str:
    """Return the command that repeats a run. `force=true` has to be added where its record is still there."""
    words = [f"method={r.method}", f"data={r.suite}/{r.task}", f"seed={r.seed}"]
    words += [f"backbone={r.backbone}"] if r.backbone != load_suite(r.suite).backbone else []
    words += [f"protocol={r.protocol}", f"precision={r.config.get('precision', 'auto')}"]
    words += [
        f"restore={r.config.get('restore')}" if word == "restored" else word
        for word in shlex.split(r.variant)
    ]
    words += ["force_data=true"] if r.data.get("forced") else []
    return shlex.join(["python", "train.py", *words])


def describe_published(suite: str, method: str, task: str, backbone: str) -> Iterator[str]:
    """Yield what is published of a cell, in every row of that name, and what is claimed in place of numbers."""
    label = published.published_index()["ours"].get(method, "")
    for r in published.published_rows(load_suite(suite), backbone)[0]:
        if not label or r.method.partition(" (")[0] != label.partition(" (")[0]:
            continue
        for c in published.published_numbers(suite, backbone):
            if (c.method, c.task) == (r.method, task):
                yield f"\npublished  {c.accuracy:g} % as {c.method}"
                yield f"  weights    {r.weights or 'not known'}; epoch chosen on {r.selected_on or 'not known'}"
                yield f"  source     {c.source}\n  note       {c.note}"
        if r.claim:
            yield f"\nclaimed    {r.method}: {r.claim}"
