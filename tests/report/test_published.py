"""The published numbers: means follow from their cells, but for exceptions known by name."""

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from samples import done

from san.data.resize import RESIZE
from san.errors import InvalidValueError, UnknownNameError
from san.report import published, published_index
from san.report.means import Column
from san.report.published import (
    PublishedNumber,
    PublishedRow,
    published_numbers,
    published_rows,
)
from san.report.published_index import counts_head, method_label, method_paper
from san.report.published_rows import make_published_row
from san.report.table import make_table
from san.report.value import to_text
from san.tasks import load_suite

VTAB = load_suite("vtab")
VIT = "vit_b16_augreg_in21k"
SUITES = ("vtab", "fgvc", "gic")
# (row, stated by, stated mean of groups): what benchmarks/published/README.md lists as not that of
# the cells. NOAH's Full is not among them: its mean is that of the right cells, and a cell is
# misprinted there.
MISMATCHES = {
    ("LoRA", "zhang2022noah", 74.5),
    ("LoRA", "jie2022convpass", 74.5),
    ("LoRA", "ma2024goft", 74.5),
    ("LoRA", "ni2024pace", 74.5),
    ("LoRA", "hyperadapter2026", 74.5),
    ("NOAH", "ni2024pace", 74.2),
}
# The family of those who own numbers: what quotes them has another.
FAMILY_OF_OWNER = {
    "jia2022vpt": {"VPT"},
    "vpt_demo": {"VPT"},
    "zhang2022noah": {"NOAH"},
    "jie2022convpass": {"NOAH-style"},
    "jie2023fact": {"NOAH-style"},
    "luo2023repadapter": {"NOAH-style"},
    "he2023spt": {"SPT"},
    "shen2024snell": {"SNELL"},
    "lian2022ssf": {"SSF"},
    "mai2025lessons": {"Mai2024-last", "Mai2024-best"},
    "zhang2024gps": {"GPS"},
    "dong2023arc": {"ARC"},
    "steitz2024adapterplus": {"Adapter+"},
}
OVERALL = {"mean", "mean_of_tasks", "mean_of_groups"}
# Mean of 19 tasks in percent, last epoch and best on test, computed from the result files of
# OSU-MLB/ViT_PEFT_Vision at cea7e21.
MAI = {
    "Convpass": (74.23, 74.95),
    "Adapter-Houlsby": (74.03, 74.46),
    "AdaptFormer": (73.72, 74.23),
    "FacT-TT": (73.67, 74.11),
    "RepAdapter": (73.56, 74.11),
    "FacT-TK": (73.39, 73.84),
    "Adapter-Pfeiffer": (73.21, 74.07),
    "SSF": (72.98, 73.46),
    "LoRA": (72.91, 73.60),
    "Bias": (72.18, 72.73),
    "DiffFit": (72.03, 72.76),
    "VPT-Deep": (71.34, 72.85),
    "LayerNorm-tuning": (71.20, 71.86),
    "VPT-Shallow": (62.50, 63.00),
    "Linear": (55.86, 56.15),
    "Full": (58.49, 65.92),
}


def cells(method: str, backbone: str = VIT) -> dict[str, float]:
    """The numbers of a row by task or stated mean; the first counts."""
    found = {}
    for number in reversed(published_numbers("vtab", backbone)):
        if number.method == method:
            found[number.task] = number.accuracy
    return found


def both_means(accuracies: Mapping[str, float]) -> tuple[float, float]:
    """The mean of all tasks of VTAB, and the mean of its groups."""
    of_groups = [group_mean(accuracies, group) for group in VTAB.groups]
    of_tasks = [accuracies[task] for task in VTAB.tasks]
    return statistics.mean(of_tasks), statistics.mean(of_groups)


def group_mean(accuracies: Mapping[str, float], group: str) -> float:
    tasks = [task.name for task in VTAB.tasks.values() if task.group == group]
    return statistics.mean(accuracies[task] for task in tasks)


def row_of(method: str, suite: str = "vtab", backbone: str = VIT) -> PublishedRow:
    rows = published_rows(load_suite(suite), backbone)[0]
    return next(row for row in rows if row.method == method)


def all_numbers() -> Iterator[tuple[str, str, PublishedNumber]]:
    """Every published number, with its suite and backbone."""
    for suite in SUITES:
        for backbone in published_index.published_index().backbones:
            for number in published_numbers(suite, backbone):
                yield suite, backbone, number


def test_all_that_is_known_is_there() -> None:
    rows = published_rows(VTAB, VIT)[0]
    complete = [row.method for row in rows if len(row.accuracies) == 19]
    first = (
        "Full Linear Bias VPT-Shallow VPT-Deep Adapter LoRA NOAH AdaptFormer Convpass FacT-TK "
        "FacT-TT SSF RepAdapter"
    )
    assert set(first.split()) <= set(complete)
    for method in MAI:
        assert {f"{method} (Mai et al., last)", f"{method} (Mai et al., best)"} <= set(complete)
    assert {row.our_method for row in rows} == {"", *published_index.published_index().our_methods}
    assert len(published_numbers("gic", VIT)) == 6
    assert len(published_rows(load_suite("fgvc"), VIT)[0]) == 29


def test_numbers_are_of_known_tasks_and_have_a_source() -> None:
    known = {suite: {*load_suite(suite).tasks, "mean"} for suite in SUITES}
    known["vtab"] |= {*VTAB.groups, *OVERALL}
    count = 0
    for suite, _, number in all_numbers():
        assert number.task.partition(":")[0] in known[suite]
        assert 0 < number.accuracy < 100
        assert number.source or number.quoted_through
        count += 1
    files = [(published.FOLDER / f"{suite}.csv").read_text() for suite in SUITES]
    # ViT-B/16 has two of our backbones, and its numbers are yielded twice.
    expected = 0
    for text in files:
        lines = text.splitlines()[1:]
        expected += len(lines) + len([line for line in lines if line.startswith("ViT-B/16,")])
    assert count == expected > 3000


def test_stated_means_are_those_of_the_cells_but_for_the_known_mismatches() -> None:
    found = set()
    checked = Counter()
    for number in published_numbers("vtab", VIT):
        accuracies = cells(number.method)
        if number.task not in OVERALL or not set(VTAB.tasks) <= accuracies.keys():
            continue
        checked[number.task] += 1
        of_tasks, of_groups = both_means(accuracies)
        mean = of_tasks if number.task == "mean_of_tasks" else of_groups
        if abs(number.accuracy - mean) > 0.08:  # rounded, or cut off
            found.add((number.method, number.source, number.accuracy))
    assert checked["mean_of_tasks"] > 25
    assert checked["mean_of_groups"] > 40
    assert found == MISMATCHES


def test_of_a_stated_mean_it_is_known_of_what_it_is() -> None:
    unknown = [number for number in published_numbers("vtab", VIT) if number.task == "mean"]
    assert [number.method for number in unknown] == ["MLAE"]
    mlae = row_of("MLAE")
    assert mlae.claim.startswith("a mean of 78.8 alone is published")
    assert not mlae.has_numbers
    assert row_of("MLAE", "fgvc").reported_means == {"fine-grained": 90.9}  # there they are one


def test_stated_group_means_are_those_of_the_cells() -> None:
    checked = 0
    for number in published_numbers("vtab", VIT):
        accuracies = cells(number.method)
        if number.task in VTAB.groups and set(VTAB.tasks) <= accuracies.keys():
            mean = group_mean(accuracies, number.task)
            assert number.accuracy == pytest.approx(mean, abs=0.12), number
            checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("method", "of_tasks", "of_groups"),
    [
        ("Full", 65.57, 68.97),
        ("Linear", 52.94, 57.64),
        ("SSF", 73.10, 75.69),
        ("NOAH", 73.25, 75.48),
        ("RepAdapter", 73.84, 76.09),
    ],
)
def test_both_means(method: str, of_tasks: float, of_groups: float) -> None:
    expected = (pytest.approx(of_tasks, abs=0.006), pytest.approx(of_groups, abs=0.006))
    assert both_means(cells(method)) == expected


def test_san_is_claimed_and_has_no_numbers() -> None:
    (san,) = (row for row in published_rows(VTAB, VIT)[0] if row.method == "SAN")
    assert not san.has_numbers
    assert "up to 8.7 points over full fine-tuning" in san.claim


def test_a_suite_of_which_nothing_is_published_has_no_rows() -> None:
    assert published_rows(load_suite("demo"), "vit_nano") == ([], [])
    assert published_rows(VTAB, "another") == ([], [])


def test_means_that_alone_are_known_are_shown_as_stated() -> None:
    swin, _ = published_rows(load_suite("fgvc"), "swin_b_in22k")
    reported = {row.method: row.reported_means for row in swin}
    assert reported["SSF"] == {"fine-grained": 91.54}
    rows, omitted = published_rows(VTAB, VIT)
    lora = next(row for row in rows if row.method == "SPT-LoRA")
    assert lora.reported_means == {"natural": 81.9, "specialised": 85.9, "structured": 61.3}
    assert lora.mean_of_groups == 76.4
    assert omitted == ["Linear (as quoted by NOAH and followers)", "VPT-Deep (official demo rerun)"]


def test_a_row_of_which_a_mean_of_groups_alone_is_known_is_in_the_table() -> None:
    adapter_plus = row_of("Adapter+")
    assert (adapter_plus.our_method, adapter_plus.mean_of_groups) == ("adapter_plus", 77.6)
    assert adapter_plus.has_numbers
    row = make_table(VTAB, [], VIT).published.row("Adapter+")
    shown = {column: to_text(value) for column, value in row.values.items() if value.exists}
    assert shown == {Column("mean", "groups"): "77.60*"}


@pytest.mark.parametrize(
    ("suite", "method", "of_groups", "mean"),
    [
        ("vtab", "SNELL-16", {"natural": 82.4, "specialised": 86.1, "structured": 61.7}, 76.7),
        ("vtab", "MoSA", {"natural": 79.9, "specialised": 84.0, "structured": 50.3}, 71.4),
        ("vtab", "VQT", {"natural": 72.7, "specialised": 84.5, "structured": 49.3}, 68.8),
        ("fgvc", "SNELL-8", {"fine-grained": 91.5}, None),
        ("fgvc", "SNELL-16", {"fine-grained": 91.7}, None),
        ("fgvc", "SNELL-32", {"fine-grained": 91.8}, None),
        ("fgvc", "Sidetune", {"fine-grained": 78.35}, None),
        ("fgvc", "Adapter+", {"fine-grained": 90.7}, None),
    ],
)
def test_rows_that_were_lacking(
    suite: str, method: str, of_groups: dict[str, float], mean: float | None
) -> None:
    row = row_of(method, suite)
    assert row.reported_means == of_groups
    assert row.mean_of_groups == mean


def test_snell_has_all_cells_of_fgvc() -> None:
    for method in ("SNELL-8", "SNELL-16", "SNELL-32"):
        row = row_of(method, "fgvc")
        assert list(row.accuracies) == list(load_suite("fgvc").tasks)
        mean = statistics.mean(row.accuracies.values())
        assert mean == pytest.approx(row.reported_means["fine-grained"], abs=0.06)


def test_mai_et_al_have_two_protocols() -> None:
    gains = []
    for method, expected in MAI.items():
        last = row_of(f"{method} (Mai et al., last)")
        best = row_of(f"{method} (Mai et al., best)")
        assert (last.selected_on, best.selected_on) == ("last", "test")
        means = (both_means(last.accuracies)[0], both_means(best.accuracies)[0])
        assert means == (
            pytest.approx(expected[0], abs=0.006),
            pytest.approx(expected[1], abs=0.006),
        )
        for task in VTAB.tasks:
            gains.append(best.accuracies[task] - last.accuracies[task])
    assert len(gains) == 16 * 19
    assert min(gains) >= 0


def test_the_full_fine_tuning_of_mai_et_al_is_said_to_be_no_baseline() -> None:
    full = [n for n in published_numbers("vtab", VIT) if n.method.startswith("Full (Mai et al.")]
    cells = [number for number in full if number.task in VTAB.tasks]
    assert len(cells) == 2 * 19
    assert all("begins at 1e-3" in number.note for number in cells)


def test_a_row_has_one_family_and_it_is_known() -> None:
    families: dict[tuple[str, str, str], set[str]] = {}
    for suite, backbone, number in all_numbers():
        is_variant = ":" in number.task
        if not is_variant:
            row = (suite, backbone, number.method)
            families.setdefault(row, set()).add(number.family)
    assert len(families) > 100
    for row, names in families.items():
        assert len(names) == 1, row
        assert names <= {"", *published_index.published_index().families}


def test_a_number_has_the_family_of_its_owner_not_of_those_who_quote_it() -> None:
    checked = Counter()
    for suite, backbone, number in all_numbers():
        # Who states the mean of a row need not own the row.
        if number.task in OVERALL or not number.family:
            continue
        if number.source in FAMILY_OF_OWNER:
            where = (suite, backbone, number)
            assert number.family in FAMILY_OF_OWNER[number.source], where
            checked[number.source] += 1
    assert set(checked) >= set(FAMILY_OF_OWNER) - {"steitz2024adapterplus"}
    assert checked["shen2024snell"] > 30


@pytest.mark.parametrize(
    ("method", "backbone", "family", "selected_on"),
    [
        ("MLP-3", "convnext_b_in22k", "VPT", "last"),
        ("MLP-3", "swin_b_in22k", "VPT", "last"),
        ("SNELL-8", "convnext_b_in22k", "SNELL", "test"),
        ("SNELL-32", VIT, "SNELL", "test"),
        ("Adapter-8", VIT, "NOAH", "test"),
        ("Adapter-8", "swin_b_in22k", "SPT", "test"),
    ],
)
def test_rows_that_snell_quotes_have_their_own_protocol(
    method: str, backbone: str, family: str, selected_on: str
) -> None:
    row = row_of(method, backbone=backbone)
    assert (row.family, row.selected_on) == (family, selected_on)


def test_what_is_comparable_shares_weights_and_selection_and_both_are_known() -> None:
    assert row_of("Full").comparison_class == ("vit_b16_orig_in21k", "last")
    assert row_of("LoRA").comparison_class == row_of("SNELL-32").comparison_class
    assert row_of("SSF").comparison_class == ("vit_b16_augreg_in21k", "test")
    assert row_of("GPS").comparison_class is None  # from which weights, is not known
    assert row_of("Hydra").comparison_class is None
    assert row_of("Full", backbone="swin_b_in22k").comparison_class is None


def test_protocols_are_in_the_words_of_the_configuration() -> None:
    families = published_index.published_index().families
    resizes = {word for family in families.values() for word in family.resize.values()}
    assert resizes == {"vtab", "bicubic", "ssf", "crop_256", "crop_248"} <= set(RESIZE)
    unknown = [name for name, family in families.items() if family.normalization is None]
    assert unknown == ["SPT", "SNELL", "GPS", "ARC", "SCT", "HST"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("vpt_deep", "jia2022vpt"),
        ("bitfit", "zaken2022bitfit"),
        ("adapter_plus", "steitz2024adapterplus"),
        ("dora", "liu2024dora"),
        ("SSF (Mai et al., best)", "lian2022ssf"),
        ("san_recalibrated", "dai2025san"),
    ],
)
def test_a_method_has_a_paper(name: str, key: str) -> None:
    paper = method_paper(name)
    assert paper is not None
    assert paper.key == key


def test_our_methods_have_the_names_of_papers() -> None:
    labels = [method_label(name) for name in ("vpt_deep", "adapter_plus", "norm", "dora")]
    assert labels == ["VPT-Deep", "Adapter+", "LayerNorm-tuning", "DoRA"]


def test_our_methods_without_a_paper_are_known() -> None:
    ours = published_index.published_index().our_methods
    assert len(ours) > 10
    assert [name for name in ours if method_paper(name) is None] == [
        "full",
        "linear",
        "mlp",
        "partial",
        "norm",
    ]


def test_a_row_is_cited_by_whose_numbers_it_has() -> None:
    assert row_of("LoRA").cite_key == "zhang2022noah"
    assert row_of("AdaptFormer").cite_key == "jie2022convpass"
    assert row_of("Hydra").cite_key == "vpetl_readme"  # whose run it is, is not said
    assert row_of("SAN").cite_key == "dai2025san"  # no numbers


def test_the_origin_of_a_number_in_words() -> None:
    (cell,) = (n for n in published_numbers("fgvc", VIT) if (n.method, n.task) == ("GPS", "cub"))
    assert cell.origin == "zhang2024gps; read in shen2024snell, Table A8; vpetl_readme"
    (stated,) = (n for n in published_numbers("fgvc", VIT) if (n.method, n.task) == ("GPS", "mean"))
    assert stated.origin == "shen2024snell, Table A8"


def test_whether_the_printed_parameters_include_the_head() -> None:
    assert counts_head("vtab", "SSF") is True
    assert counts_head("vtab", "LoRA") is False
    assert counts_head("fgvc", "Linear") is True
    assert counts_head("fgvc", "Bias (V-PETL run)") is False
    assert counts_head("fgvc", "GPS") is None
    assert counts_head("demo", "SSF") is None


def test_fgvc_means() -> None:
    checked = 0
    rows = {row.method: row.accuracies for row in published_rows(load_suite("fgvc"), VIT)[0]}
    for number in published_numbers("fgvc", VIT):
        accuracies = rows.get(number.method, {})
        if number.task == "mean" and len(accuracies) == 5:
            mean = statistics.mean(accuracies.values())
            assert number.accuracy == pytest.approx(mean, abs=0.07), number.method
            checked += 1
    assert checked > 10


@pytest.mark.parametrize(
    ("section", "row", "error", "message"),
    [
        ("families", {"VPT": {"weight": None}}, UnknownNameError, "'weight'. Did you mean weights"),
        ("families", {"VPT": {"selected_on": "val"}}, InvalidValueError, "family VPT: selected_on"),
        ("families", {}, UnknownNameError, "Unknown family in published/vtab.csv 'VPT'"),
        ("papers", {"Bias": "zaken2022"}, UnknownNameError, "Did you mean zaken2022bitfit"),
        ("claims", {"SAN": 3}, InvalidValueError, "rows.yaml: claims"),
        ("claim", {}, UnknownNameError, "'claim'. Did you mean claims"),
    ],
)
def test_a_mistake_in_the_index_is_named(
    section: str,
    row: object,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = yaml.safe_load((published.FOLDER / "rows.yaml").read_text())
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump({**rows, section: row}))
    monkeypatch.setattr(published_index, "_FILE", path)
    published_index.published_index.cache_clear()
    try:
        with pytest.raises(error, match=re.escape(message)):
            published_rows(VTAB, VIT)
    finally:
        published_index.published_index.cache_clear()
        published_numbers.cache_clear()


HEADER = "backbone,method,task,accuracy,params_m,family,source,table,quoted_through,note"


@pytest.fixture
def own_fgvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file in place of fgvc.csv."""
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    published_numbers.cache_clear()
    yield tmp_path / "fgvc.csv"
    published_numbers.cache_clear()


def test_of_several_quotations_the_first_counts(own_fgvc: Path) -> None:
    lines = [
        HEADER,
        "ViT-B/16,Full,cub,80.1,85.8,VPT,jia2022vpt,14,,",
        "ViT-B/16,Full,cub,81.2,85.8,VPT,lian2022ssf,,,",
    ]
    own_fgvc.write_text("\n".join(lines))
    suite = load_suite("fgvc")
    full = published_rows(suite, VIT)[0][0]
    assert full.accuracies == {"cub": 80.1}
    run = done(900, suite="fgvc", task="cub", method="full", backbone=VIT)
    cells = make_table(suite, [run], VIT).cells
    lines = [cell for cell in cells if cell["task"] == "cub" and cell["kind"] != "ours"]
    found = [(line["kind"], line["mean"], line["source"], line["source_table"]) for line in lines]
    assert found == [("published", 80.1, "jia2022vpt", "14"), ("quoted", 81.2, "lian2022ssf", "")]


@pytest.mark.parametrize(
    ("source", "quoted"), [("jia2022vp", ""), ("", "jia2022vp:14"), ("lian2022ssf", "jia2022vp")]
)
def test_a_source_that_is_not_listed_is_refused(source: str, quoted: str, own_fgvc: Path) -> None:
    own_fgvc.write_text(f"{HEADER}\nViT-B/16,Full,cub,80.1,85.8,VPT,{source},,{quoted},\n")
    message = "Unknown source in fgvc.csv 'jia2022vp'. Did you mean jia2022vpt"
    with pytest.raises(UnknownNameError, match=re.escape(message)):
        published_numbers("fgvc", VIT)


@pytest.mark.parametrize(
    ("suite", "params_m", "classes", "left"),
    [
        ("vtab", 0.24, None, 203_951),  # SSF: its code trains 205,824 without the head
        ("fgvc", 0.18, None, 0),  # linear probing, rounded
        ("gic", 0.28, "cifar100", 203_100),  # of the task alone that prints it
    ],
)
def test_the_head_is_taken_off_a_printed_count(
    suite: str, params_m: float, classes: str | None, left: float
) -> None:
    facts = load_suite(suite)
    tasks = tuple(facts.tasks) if classes is None else (classes,)
    row = PublishedRow(
        method="made up",
        our_method="",
        accuracies=dict.fromkeys(facts.tasks, 70.0),
        reported_means={},
        params_m=params_m,
        params_tasks=tasks,
        counts_head=True,
    )
    trainable = make_published_row(facts, row, VIT).trainable
    assert trainable.without_head == pytest.approx(left, abs=3000)
    assert trainable.is_estimated


def test_a_head_that_is_larger_than_the_printed_count_is_a_mistake() -> None:
    facts = load_suite("fgvc")
    row = PublishedRow("made up", "", dict.fromkeys(facts.tasks, 70.0), {}, params_m=0.02)
    row = replace(row, params_tasks=tuple(facts.tasks), counts_head=True)
    with pytest.raises(InvalidValueError, match="20,000 with the head; at least the mean head"):
        make_published_row(facts, row, VIT)
