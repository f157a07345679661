"""Which rows and columns are shown, and in which order."""

import pytest
from samples import DEMO, VTAB, demo_records, done, vtab_records

from san.errors import UnknownNameError
from san.report.means import Column
from san.report.selection import Selection, Sort, Wanted, select
from san.report.table import make_table

ORIGINAL = "vit_b16_orig_in21k"


def chosen(**wanted: object) -> Selection:
    return select(make_table(VTAB, vtab_records()), Wanted(**wanted))


def names(selection: Selection) -> list[str]:
    return [row.name for row in selection.ours]


def test_the_best_row_comes_first_and_incomplete_ones_last() -> None:
    assert names(chosen()) == ["ssf", "lora", "san"]
    assert names(chosen(sort=Sort.SUITE)) == ["lora", "ssf", "san"]


def test_rows_are_chosen_by_method_or_name_in_any_order() -> None:
    assert names(chosen(rows=["san", "lora"], sort=Sort.SUITE)) == ["san", "lora"]
    table = make_table(DEMO, demo_records())
    of_san = select(table, Wanted(rows=["san"]))
    assert len(of_san.ours) == 4
    one = select(table, Wanted(rows=["san [epochs=3, last_epoch]"]))
    assert names(one) == ["san [epochs=3, last_epoch]"]


def test_published_rows_that_matter_are_those_of_our_methods_and_the_leaders() -> None:
    found = [row.name for row in chosen().published]
    assert {"SSF", "LoRA", "Full", "VPT-Deep"} <= set(found)
    assert "Convpass (Mai et al., last)" in found
    assert "SAN" not in found  # a claim without a number
    assert "SNELL-8" not in found
    assert len(chosen(published=["all"]).published) > 60
    assert chosen(published=["none"]).published == ()
    assert [row.name for row in chosen(published=["NOAH"]).published] == ["NOAH"]


def test_columns_are_tasks_groups_and_means() -> None:
    every = chosen().columns
    assert len(every) == 19 + 3 + 2
    assert [column.label for column in every[:3]] == ["CIFAR-100", "Caltech101", "DTD"]
    assert every[7] == Column("mean of", "natural")  # behind its tasks
    means = chosen(columns=["means"]).columns
    assert [column.label for column in means] == [
        "natural",
        "specialised",
        "structured",
        "all",
        "groups",
    ]
    some = chosen(columns=["structured", "CIFAR-100"]).columns
    assert len(some) == 9
    assert some[0].label == "CIFAR-100"
    assert len(chosen(columns=["tasks"]).columns) == 19


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"rows": ["ssv"]}, "Unknown row 'ssv'. Did you mean ssf"),
        ({"published": ["NOAHH"]}, "Unknown published row 'NOAHH'. Did you mean NOAH"),
        ({"columns": ["cifer"]}, "Unknown column 'cifer'. Did you mean cifar"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(
    wanted: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(UnknownNameError, match=message):
        chosen(**wanted)


def test_variants_sort_by_the_value_of_their_numbers() -> None:
    """0, 1, 2, 10, 11: not as text."""
    ranks = (10, 2, 0, 11, 1)
    runs = [done(700, method="lora", variant=f"method.rank={rank}") for rank in ranks]
    table = make_table(DEMO, runs)
    assert [row.name for row in table.ours.rows] == [
        f"lora [rank={rank}]" for rank in sorted(ranks)
    ]
