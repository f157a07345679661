"""What is searched: the shipped searches, the points of a space, and files that say no space."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from san.config_files import reads_recipe
from san.config_keys import RECIPE_KEYS
from san.errors import InvalidValueError, SanError, UnknownNameError
from san.methods import default_options, method_names
from san.search.space import Dimension, Search, load_search, read_search, search_names

LR = Dimension(low=4e-4, high=0.1)
WEIGHT_DECAY = Dimension(low=1e-5, high=0.1)
GRID = "sampling: grid\ntrials: 5\nspace:\n  lr: {low: 0.0004, high: 0.1}\n"
SHIPPED = {"lr": 5, "lr_rank": 5, "lr_wd": 5, "mai": 4}  # points of every method


def halton(trials: int, seed: int = 0) -> list[dict[str, Any]]:
    space = {"lr": LR, "weight_decay": WEIGHT_DECAY}
    return Search("mine", "halton", trials, space, sampling_seed=seed).points("san")


def grid(trials: int, **space: Dimension) -> list[dict[str, Any]]:
    return Search("mine", "grid", trials, space).points("san")


def written(text: str, folder: Path) -> Path:
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


def test_the_default_search_tries_five_learning_rates_a_factor_of_four_apart() -> None:
    points = load_search("lr").points("san")
    assert points == [{"lr": lr} for lr in (0.0004, 0.00159, 0.00632, 0.0251, 0.1)]
    ratios = [b["lr"] / a["lr"] for a, b in itertools.pairwise(points)]
    assert ratios == pytest.approx([250 ** (1 / 4)] * 4, rel=0.01)


def test_the_grid_of_mai_et_al_has_all_four_combinations() -> None:
    points = load_search("mai").points("lora")
    assert points == [
        {"lr": lr, "weight_decay": decay} for lr in (1e-3, 1e-2) for decay in (1e-4, 1e-3)
    ]


def test_every_method_has_the_same_number_of_trials_but_for_its_additions() -> None:
    assert set(search_names()) == set(SHIPPED)
    names = method_names()
    assert len(names) > 15
    added = 0
    for name, count in SHIPPED.items():
        search = load_search(name)
        shared = search.points("none of our methods")
        assert len(shared) == search.trials == count
        assert set(search.additions) <= set(names)
        for method in names:
            extra = search.additions.get(method, {})
            points = search.points(method)
            assert len(points) == count * math.prod(map(len, extra.values()))
            assert search.addition(method) == ("method.rank 4 8 16" if extra else "")
            own = [{key: point[key] for key in search.space} for point in points]
            assert all(point in shared for point in own)
            assert all(point in own for point in shared)
            added += bool(extra)
    assert added == 2  # lora and dora, of lr_rank


def test_what_is_searched_is_a_setting_and_a_recipe_can_say_it() -> None:
    for name in SHIPPED:
        search = load_search(name)
        assert set(search.space) <= set(RECIPE_KEYS)
        for method, added in search.additions.items():
            for key in added:
                option = key.removeprefix("method.")
                assert option in default_options(method)
                assert reads_recipe(method, option)


def test_the_budget_is_said_in_words() -> None:
    assert load_search("lr").budget == "5 points, grid: lr 0.0004 to 0.1"
    assert load_search("mai").budget == "4 points, grid: lr 0.001 0.01, weight_decay 0.0001 0.001"


def test_another_number_of_trials_may_be_asked_for() -> None:
    lrs = [point["lr"] for point in load_search("lr", 3).points("san")]
    assert lrs == [0.0004, 0.00632, 0.1]
    assert len(load_search("lr_wd", 9).points("san")) == 9
    assert len(load_search("lr_rank", 2).points("lora")) == 2 * 3


def test_a_quasi_random_search_keeps_its_first_points() -> None:
    many = halton(40)
    for count in (1, 2, 7, 39):
        assert halton(count) == many[:count]
    assert len({str(point) for point in many}) == 40
    assert load_search("lr_wd", 40).points("ssf") == many


def test_a_quasi_random_search_fills_its_ranges_on_a_logarithmic_scale() -> None:
    points = halton(64)
    for key, each in [("lr", LR), ("weight_decay", WEIGHT_DECAY)]:
        assert each.low is not None
        assert each.high is not None
        ratio = math.log(each.high / each.low)
        shares = sorted(math.log(point[key] / each.low) / ratio for point in points)
        assert shares[0] >= 0
        assert shares[-1] <= 1
        for i, share in enumerate(shares):
            assert share == pytest.approx((i + 0.5) / 64, abs=0.06)


def test_the_seed_of_the_sampling_draws_other_points() -> None:
    assert halton(8, seed=1) == halton(8, seed=1)
    assert halton(8, seed=1) != halton(8, seed=0)


def test_additions_are_combined_with_every_point() -> None:
    added = {"lora": {"method.rank": (4, 8), "method.dropout": (0.0, 0.1)}}
    search = Search("mine", "grid", 2, {"lr": LR}, added)
    points = search.points("lora")
    assert [tuple(point.values()) for point in points] == [
        (lr, rank, dropout) for lr in (4e-4, 0.1) for rank in (4, 8) for dropout in (0.0, 0.1)
    ]
    assert search.points("ssf") == [{"lr": 4e-4}, {"lr": 0.1}]
    assert search.addition("lora") == "method.rank 4 8, method.dropout 0.0 0.1"


def test_a_grid_spaces_its_range_beside_lists() -> None:
    listed = Dimension(values=(0.0, 0.1))
    points = grid(6, lr=Dimension(low=1e-4, high=1e-2), weight_decay=listed)
    assert [tuple(point.values()) for point in points] == [
        (lr, decay) for lr in (1e-4, 1e-3, 1e-2) for decay in (0.0, 0.1)
    ]


@pytest.mark.parametrize(
    ("trials", "space", "allowed"),
    [
        (1, {"lr": LR}, "1 trial came; mine takes 2 trials or more"),
        (5, {"lr": LR, "weight_decay": Dimension(values=(0, 1))}, "a multiple of 2, from 4 on"),
        (2, {"lr": LR, "weight_decay": Dimension(values=(0, 1))}, "a multiple of 2, from 4 on"),
        (4, {"lr": LR, "weight_decay": WEIGHT_DECAY}, "a grid takes one at most"),
        (4, {"lr": Dimension(values=(1, 2))}, "mine takes 2, one for each combination"),
        (1, {"lr": Dimension(values=(1, 2))}, "mine takes 2, one for each combination"),
    ],
)
def test_a_grid_refuses_other_numbers_of_trials(
    trials: int, space: dict[str, Dimension], allowed: str
) -> None:
    with pytest.raises(InvalidValueError, match=f"^{trials} trials? came; .*mine ") as caught:
        grid(trials, **space)
    assert allowed in str(caught.value)


def test_a_quasi_random_search_takes_no_list() -> None:
    with pytest.raises(InvalidValueError, match="lr came as a list; a quasi-random search takes"):
        Search("mine", "halton", 3, {"lr": Dimension(values=(1, 2))}).points("san")


@pytest.mark.parametrize(
    "given",
    [{}, {"low": 1.0}, {"low": 2.0, "high": 1.0}, {"low": 1.0, "high": 2.0, "values": (1,)}],
)
def test_a_dimension_is_a_range_or_a_list(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="allowed: low and high with low < high, or values"):
        Dimension(**given)


BAD_FILES = {
    "an unknown key": (GRID + "trails: 3\n", "Unknown key of search .* 'trails'.*mean trials"),
    "an unknown word": (GRID.replace("low", "lo"), "Unknown key of .*, lr 'lo'.*mean low"),
    "a sampling": (GRID.replace("grid", "gird"), "sampling 'gird'. Did you mean grid"),
    "no number": (GRID.replace("5", "yes"), "trials came as True; allowed: `int`"),
    "no trials": (GRID.replace("trials: 5", ""), "has no `trials`; it is required"),
    "zero trials": (GRID.replace("5", "0"), "trials came as 0; allowed: `int` >= 1"),
    "one trial": (GRID.replace("5", "1"), "1 trial came; mine takes 2 trials or more"),
    "a text": (GRID.replace("0.0004", "4e-4"), "lr: low came as '4e-4'; allowed: `float"),
    "infinity": (GRID.replace("0.1", ".inf"), "high came as inf; allowed: a finite number"),
    "no space": ("sampling: grid\ntrials: 1\n", "space came as None"),
    "an empty space": ("sampling: grid\ntrials: 1\nspace: {}\n", "space came as {}"),
    "no range": (GRID.replace("{low: 0.0004, high: 0.1}", "3"), "space came as {'lr': 3}"),
    "a value twice": (
        GRID.replace("{low: 0.0004, high: 0.1}", "{values: [1, 2, 3, 4, 4]}"),
        "{'lr': 4}; {'lr': 4}; allowed: one or more, all different",
    ),
    "nothing added": (GRID + "additions: {lora: {method.rank: []}}\n", "lora has the points none"),
    "no list": (GRID + "additions: {lora: {method.rank: 4}}\n", "additions came as {'lora'"),
    "a list": ("- a\n", r"came as \['a'\]"),
    "an empty file": ("", "came as None"),
    "no YAML": ("a: [", "cannot be read: while parsing"),
    "no day": ("a: 2020-13-45", "cannot be read: month must be in"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    text, message = BAD_FILES[kind]
    with pytest.raises(SanError, match=message):
        read_search(written(text, tmp_path))


def test_a_good_file_is_read(tmp_path: Path) -> None:
    """Else a reader that refuses everything would pass."""
    assert read_search(written(GRID, tmp_path)).points("san") == load_search("lr").points("san")


def test_an_unknown_search_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Unknown search 'lrr'. Did you mean lr"):
        load_search("lrr")
