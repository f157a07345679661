"""A user's own images: from runs to a table, a status and commands, like those of a suite."""

import re
import shlex
import sys
from pathlib import Path

import pictures
import pytest
from conftest import resolved

from san.commands import reproduce, tables
from san.config_keys import check_recipe
from san.errors import InvalidValueError, UnknownNameError
from san.experiment import from_config
from san.installation import process_words
from san.record_file import read_records
from san.record_names import named_by_value, rerun_words
from san.report.explain import explain_cell
from san.report.markdown import markdown
from san.report.own_images import with_own_tasks
from san.report.selection import Wanted, select
from san.report.table import make_table
from san.run import run
from san.runtime.paths import folder_key
from san.settings import RunConfig
from san.sweep import driver
from san.sweep.plan import RunState, run_status
from san.tasks import load_suite

OPTIONS = ["backbone=vit_nano", "epochs=1", "logger=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "my pics"
    for name in ("ants", "bees", "cats"):
        for i in range(30):
            pictures.save(folder / name / f"{i}.png", len(name) + ord(name[0]), i)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("runs")
    return [f"results_dir={root / 'results'}", f"data_root={root / 'data'}"]


@pytest.fixture(scope="module")
def results(folder: Path, places: list[str]) -> Path:
    """Two methods with two seeds on a named folder, and one on the same without a name."""
    root = f"data.root={folder}"
    for method, seed in [("linear", 0), ("linear", 1), ("ssf", 0), ("ssf", 1)]:
        words = [root, "data.task=insects", f"method={method}", f"seed={seed}"]
        run(*config(*words, *places))
    run(*config(root, "method=linear", *places))
    return Path(places[0].partition("=")[2])


def config(*words: str) -> RunConfig:
    return resolved("data=folder", *OPTIONS, *words)


def test_a_folder_has_a_table_with_a_verdict(results: Path) -> None:
    records, problems = read_records(results / "records")
    assert problems == []
    records = [named_by_value(r) for r in records]
    suite = with_own_tasks(load_suite("folder"), records)
    (unnamed,) = set(suite.tasks) - {"insects"}
    assert unnamed.startswith("my pics-")
    named = [r for r in records if r.task == "insects"]
    assert len(named) == 4
    table = make_table(with_own_tasks(suite, named), named, "vit_nano")
    text = " ".join(markdown(table, select(table, Wanted())).split())
    assert "Own images: insects, vit_nano" in text
    # A single task is answered by its images; linear probing is ranked like any method.
    assert "(insects), " in text
    assert "95 % interval over test images and seeds" in text
    assert "One task: it says nothing of others." in text
    assert re.findall(r".{30}\bnan\b.{20}", text) == []
    assert "seeds" in text
    assert "baselines" not in text.casefold()
    assert {row.name for row in table.ours.rows} == {"linear [epochs=1]", "ssf [epochs=1]"}


def test_each_folder_has_a_table_of_its_own(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tables.py", "folder", "--results", str(results)])
    tables.main()
    shown = capsys.readouterr().out
    assert shown.count("**Own images: ") == 2
    assert "**Own images: insects, vit_nano**, top-1" in shown
    assert "linear [epochs=1] leads with" in shown  # of the folder without a name
    names = {path.name for path in (results / "tables").glob("*_cells.csv")}
    assert len(names) == 2
    monkeypatch.setattr(sys, "argv", ["tables.py", "folder/insects", "--results", str(results)])
    tables.main()
    assert capsys.readouterr().out.count("**Own images: ") == 1
    assert "folder_vit_nano_insects_cells.csv" in names
    assert not any(" " in name for name in names)


def test_a_record_says_how_to_repeat_it(results: Path) -> None:
    records, _ = read_records(results / "records")
    assert len(records) == 5
    for record in map(named_by_value, records):
        words = [*rerun_words(record), f"results_dir={results}"]
        words.append(f"data_root={results.parent / 'data'}")
        again = from_config(*resolved(*words))
        assert again.identity == record.id, words


def test_a_cell_says_what_runs_what_is_missing(results: Path, folder: Path) -> None:
    records = [named_by_value(r) for r in read_records(results / "records")[0]]
    lines = "\n".join(explain_cell("folder", "lora", "insects", records, results / "records"))
    command = shlex.split(lines.partition("    run ")[2].replace("\\\n", " "))
    assert command[:2] == ["python", "train.py"]
    composed = resolved(*command[2:]).config
    assert composed["data"]["root"] == str(folder)
    assert (composed["data"]["task"], composed["method"]["name"]) == ("insects", "lora")


@pytest.mark.usefixtures("results")
def test_a_sweep_finds_the_runs_of_train_py(folder: Path, places: list[str]) -> None:
    words = ["folder", "--methods=linear,ssf,lora", "--seeds=0,1", "--backbone=vit_nano"]
    words += ["epochs=1", "logger=none", *places, f"data.root={folder}", "data.task=insects"]
    request = reproduce.make_request(reproduce.parse_arguments(words))
    statuses = [run_status(run) for run in driver.plan_sweep(request)]
    states = [(status.run.method, status.state) for status in statuses]
    done = [("linear", RunState.DONE)] * 2 + [("ssf", RunState.DONE)] * 2
    assert states == done + [("lora", RunState.MISSING)] * 2
    assert statuses[0].run.display_name == "folder/insects linear [epochs=1] seed 0"
    # A job that a launcher starts does the same runs.
    start = process_words("reproduce")
    job = request.worker_command(submitted_ns=1)[len(start) :]
    again = driver.plan_sweep(reproduce.make_request(reproduce.parse_arguments(job)))
    assert [run.path for run in again] == [status.run.path for status in statuses]


def test_a_sweep_of_own_images_needs_their_folder() -> None:
    request = reproduce.make_request(reproduce.parse_arguments(["folder"]))
    with pytest.raises(InvalidValueError, match=r"give data\.root=FOLDER, with FOLDER/CLASS"):
        driver.plan_sweep(request)


@pytest.mark.usefixtures("results")
def test_a_sweep_of_a_folder_without_a_name(
    folder: Path, places: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICTURES", str(folder))
    words = ["folder", "--methods=linear", "--seeds=0", "--backbone=vit_nano", "epochs=1"]
    words += ["logger=none", *places, "data.root=${oc.env:PICTURES}"]
    (planned,) = driver.plan_sweep(reproduce.make_request(reproduce.parse_arguments(words)))
    assert run_status(planned).state == RunState.DONE
    assert planned.task.name.startswith("my pics-")


def test_only_own_images_have_tables_by_task(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, error in {"vtab/cifar": InvalidValueError, "folder/insect": UnknownNameError}.items():
        monkeypatch.setattr(sys, "argv", ["tables.py", name, "--results", str(results)])
        with pytest.raises(error, match="no table of its own|Did you mean insects"):
            tables.main()


def test_what_was_tuned_for_a_folder_is_not_for_another_of_its_name(tmp_path: Path) -> None:
    one = folder_key(tmp_path / "one", "pets")
    assert one != folder_key(tmp_path / "two", "pets")
    columns = "suite,backbone,method,settings,task,lr,source,search,space,trials"
    rows = tmp_path / "rows.csv"
    rows.write_text(f"{columns}\nfolder,vit_nano,ssf,,{one},0.123,ours,lr,x,5\n", encoding="utf-8")
    words = ["data.task=pets", "method=ssf", "recipe=tuned", f"recipe.rows={rows}"]
    found = config(f"data.root={tmp_path / 'one'}", *words).config
    assert found["lr"] == 0.123
    other = config(f"data.root={tmp_path / 'two'}", *words).config
    assert other["recipe"]["row"] is None
    with pytest.raises(InvalidValueError, match="Search them: .* data.root=.*two data.task=pets"):
        check_recipe(other)
