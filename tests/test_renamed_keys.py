"""Old words of configurations, and the words of record schema 1."""

from san.methods import default_options
from san.renamed_keys import (
    ADDED_OPTIONS,
    KEYS,
    OPTIONS,
    VALUES,
    current_config,
    current_options,
    current_words,
    schema_1_config,
    schema_1_options,
)


def test_every_key_has_a_way_there_and_back() -> None:
    assert len(set(KEYS.values())) == len(KEYS)
    assert not set(KEYS) & set(KEYS.values())
    for old, new in KEYS.items():
        assert old.rpartition(".")[0] == new.rpartition(".")[0]  # it stays in its dictionary
        assert current_words([f"{old}=1"], warn=False) == [f"{new}=1"]
        *path, leaf = new.split(".")
        nested = {leaf: 1}
        for name in reversed(path):
            nested = {name: nested}
        there = schema_1_config({"method": {"name": "san"}} | nested)
        assert current_config(there, warn=False) == {"method": {"name": "san"}} | nested
        assert there != {"method": {"name": "san"}} | nested
    for key, values in VALUES.items():
        assert key in KEYS.values()
        for old, new in values.items():
            assert current_words([f"{key}={old}"], warn=False) == [f"{key}={new}"]
            group, _, leaf = key.partition(".")
            stored = schema_1_config({"method": {"name": "san"}, group: {leaf: new}})
            assert list(stored[group].values()) == [old]


def test_options_are_renamed_for_their_methods_alone() -> None:
    assert len(OPTIONS) >= 11
    for method, options in OPTIONS.items():
        assert set(options.values()) <= set(default_options(method))
        for old, new in options.items():
            words = [f"method={method}", f"method.{old}=1"]
            renamed = [f"method={method}", f"method.{new}=1"]
            assert current_words(words, warn=False) == renamed
            assert current_words(words[1:], [method], warn=False) == renamed[1:]
            assert schema_1_options(method, current_options(method, {old: 1})) == {old: 1}
    mine = ["method=mine", "method.width=4", "method.place=end"]
    assert current_words(mine, warn=False) == mine
    assert current_options("mine", {"width": 4, "place": "end"}) == {"width": 4, "place": "end"}
    config = {"method": {"name": "mine", "width": 4}}
    assert current_config(config) == config


def test_nested_dictionaries_are_renamed_and_interpolations_follow() -> None:
    old = {
        "smoothing": "${recipe.smoothing}",
        "recipe": {"smoothing": 0.1, "lr": {"other": 1.0, "san": 2.0}},
        "data": {"normalise": "${backbone.normalise}"},
        "backbone": {"normalise": "half", "timm": "x", "arguments": {"width": 3}},
        "method": {"name": "adapter", "width": 8},
    }
    new = current_config(old)
    assert new == {
        "label_smoothing": "${recipe.label_smoothing}",
        "recipe": {"label_smoothing": 0.1, "lr": {"default": 1.0, "san": 2.0}},
        "data": {"normalize": "${backbone.normalize}"},
        "backbone": {"normalize": "inception", "timm_name": "x", "kwargs": {"width": 3}},
        "method": {"name": "adapter", "bottleneck_dim": 8},
    }
    assert current_config(new) == new
    plain = {"normalize": "inception"}
    assert schema_1_config({"backbone": plain, "data": plain}) == {
        "backbone": {"normalise": "half"},
        "data": {"normalise": "half"},
    }


def test_options_of_a_method() -> None:
    given = {"length": 5, "place": "end", "deep": True}
    assert current_options("vpt_deep", given, warn=False) == {
        "num_prompts": 5,
        "position": "append",
        "deep": True,
    }
    assert schema_1_options("vpt_deep", {"num_prompts": 5, "position": "append"}) == {
        "length": 5,
        "place": "end",
    }


def test_an_added_option_is_left_out_at_its_default_alone() -> None:
    """Its default is what runs did before it: another one would give their names to other runs."""
    assert ADDED_OPTIONS.keys() == {"adapter", "san", "san_neurons", "san_recalibrated"}
    for method, added in ADDED_OPTIONS.items():
        defaults = default_options(method)
        assert added.items() <= defaults.items()
        assert schema_1_options(method, added) == {}
        assert schema_1_options(method, defaults).keys().isdisjoint(added)
        changed = {name: [value] for name, value in added.items()}
        assert schema_1_options(method, changed) == changed
    assert schema_1_options("san", {"init_std": 0.02}) == {"init_std": 0.02}
    assert schema_1_options("ssf", {"init_std": 0.0}) == {"std": 0.0}  # which it always had


def test_words_keep_their_sign_and_their_sweeps() -> None:
    words = [
        "+backbone.arguments.drop_rate=0.1",
        "~backbone.timm",
        "data.normalise=half,clip",
        "data.normalise='unit'",
        "hydra.sweep.dir='${results}/a,b'",
        "-m",
    ]
    assert current_words(words, warn=False) == [
        "+backbone.kwargs.drop_rate=0.1",
        "~backbone.timm_name",
        "data.normalize=inception,clip",
        "data.normalize=none",
        "hydra.sweep.dir='${results_dir}/a,b'",
        "-m",
    ]
