"""Configurations compose: every task, method and choice; old words are taken, with a warning."""

import copy
import logging
from pathlib import Path

import pytest
import timm
from conftest import composed, resolved

from san import compose, config_files, methods, renamed_keys
from san.backbones import family_of_name
from san.errors import SanError, UnsupportedModelError
from san.experiment import from_config
from san.methods import check_options, default_options
from san.run_options import RunOptions
from san.tasks import load_suite, suite_names

GROUPS = ["augment", "backbone", "method", "protocol", "logger", "recipe"]


def test_every_cell_composes(data_root: Path) -> None:
    methods_ = config_files.choices("method")
    tasks = [f"{suite}/{task}" for suite in suite_names() for task in load_suite(suite).tasks]
    assert len(tasks) >= 6 + 19 + 5 + 2 + 21
    cells = [(task, method) for task in tasks for method in methods_]
    # Every method and many tasks, with the suite's own backbone.
    for task, method in cells[::31] + cells[-len(methods_) :]:
        assert composed(f"data={task}", f"method={method}")["method"]["name"] == method
    demo = [task for task in tasks if task.startswith("demo/")]
    runs = compose.compose_grid(demo, methods_, [0], [f"data_root={data_root}"])
    identities = {from_config(*run).identity for run in runs}
    assert len(identities) == len(runs) == len(load_suite("demo").tasks) * len(methods_)


def test_every_task_says_how_to_get_its_data(tmp_path: Path) -> None:
    suites = [load_suite(name) for name in suite_names()]
    tasks = [task for suite in suites if suite.source != "drawn" for task in suite.tasks.values()]
    assert len(tasks) >= 19 + 5 + 2 + 21
    (tmp_path / "adapter").touch()
    for task in tasks:
        name = f"{task.suite}/{task.name}"
        settings = [f"data={name}", "backbone=vit_nano", f"data_root={tmp_path}"]
        if "train" not in task.splits:
            message = f"no training images: give adapter_checkpoint=FILE, .*{task.trained_on}"
            with pytest.raises(SanError, match=message):
                from_config(composed(*settings))
            settings.append(f"adapter_checkpoint={tmp_path / 'adapter'}")
        message = r"is not prepared below(.|\n)*scripts/prepare.py .* --from"
        with pytest.raises(FileNotFoundError, match=message):
            from_config(composed(*settings))


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_composes_and_is_named_like_its_file(group: str) -> None:
    choices = config_files.choices(group)
    assert choices
    for choice in choices:
        if choice != "timm":  # which takes its name from the command line
            assert composed(f"{group}={choice}")[group]["name"] == choice


def test_a_demo_task_brings_its_backbone_and_the_command_line_wins() -> None:
    assert composed("data=demo/count")["backbone"]["name"] == "vit_nano"
    chosen = composed("data=demo/count", "backbone=vit_b16_orig_in21k")["backbone"]
    assert chosen["name"] == "vit_b16_orig_in21k"


def test_every_method_states_its_options_in_its_configuration() -> None:
    assert list(config_files.choices("method")) == methods.method_names()
    for name in methods.method_names():
        options = composed(f"method={name}")["method"]
        assert options.pop("name") == name
        assert check_options(name, options) == default_options(name) == check_options(name, {})
        assert options.keys() == default_options(name).keys()


def test_defaults_that_depend_on_the_backbone_are_those_of_the_code() -> None:
    for name in methods.method_names():
        options = composed(f"method={name}", "backbone=convnext_b_in22k")["method"]
        del options["name"]
        expected = default_options(name, "ConvNeXt")
        assert (
            check_options(name, options, "ConvNeXt")
            == expected
            == check_options(name, {}, "ConvNeXt")
        )
    assert default_options("lora", "ConvNeXt") != default_options("lora")


def test_timms_names_tell_a_convnext() -> None:
    names = timm.list_models()
    assert len(names) > 1000
    for name in names:
        try:
            is_convnext = family_of_name(name) == "ConvNeXt"
        except UnsupportedModelError:
            is_convnext = False
        assert is_convnext == ("convnext" in name), name


OLD_WORDS = [
    (["smoothing=0.1"], ["label_smoothing=0.1"]),
    (["workers=2"], ["num_workers=2"]),
    (["results=elsewhere"], ["results_dir=elsewhere"]),
    (["force_data=true"], ["allow_unverified_data=true"]),
    (["restore=file"], ["adapter_checkpoint=file"]),
    (["protocol.every=2"], ["protocol.eval_every=2"]),
    (["logger.artifact=true"], ["logger.log_adapter=true"]),
    (["data.normalise=half"], ["data.normalize=inception"]),
    (["backbone.normalise=unit"], ["backbone.normalize=none"]),
    (["+backbone.arguments.drop_rate=0.1"], ["+backbone.kwargs.drop_rate=0.1"]),
    (["backbone.timm=vit_tiny_patch16_224"], ["backbone.timm_name=vit_tiny_patch16_224"]),
    (["augment=ssf", "augment.jitter=0.1"], ["augment=ssf", "augment.color_jitter=0.1"]),
    (["augment=ssf", "augment.policy=null"], ["augment=ssf", "augment.auto_augment=null"]),
    (["augment=ssf", "augment.erasing=0"], ["augment=ssf", "augment.random_erasing=0"]),
    (["recipe.smoothing=0.2"], ["recipe.label_smoothing=0.2"]),
    (["method=dora", "recipe.lr.other=1"], ["method=dora", "recipe.lr.default=1"]),
    (["method=adapter", "method.width=4"], ["method=adapter", "method.bottleneck_dim=4"]),
    (["method=ssf", "method.std=1.0"], ["method=ssf", "method.init_std=1.0"]),
    (["method=vpt_deep", "method.length=4"], ["method=vpt_deep", "method.num_prompts=4"]),
    (["method=vpt_deep", "method.place=end"], ["method=vpt_deep", "method.position=append"]),
    (["method.norms=false"], ["method.train_norms=false"]),
    (["method.neurons=false"], ["method.train_output_scale=false"]),
]


def test_old_words_are_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tried = set()
    for old, new in OLD_WORDS:
        renamed_keys._warned.clear()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert composed(*old) == composed(*new)
        old_key, new_key = (words[-1].lstrip("+").partition("=")[0] for words in (old, new))
        assert f"`{old_key}` is now called `{new_key}`" in caplog.text
        tried |= {known for known in renamed_keys.KEYS if old_key.startswith(known)}
    assert tried == set(renamed_keys.KEYS)


def test_a_users_own_files_may_have_old_words(tmp_path: Path) -> None:
    import hydra
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "recipe").mkdir()
    text = (config_files.CONFIGS / "recipe" / "demo.yaml").read_text()
    old = text.replace("label_smoothing: 0.0", "smoothing: 0.3").replace(
        "default: 5e-3", "other: 7.0"
    )
    (tmp_path / "recipe" / "mine.yaml").write_text(old)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_files.CONFIGS), version_base="1.3"):
        words = [f"hydra.searchpath=[file://{tmp_path}]", "recipe=mine", "method=dora"]
        config, _ = compose.resolve(hydra.compose("train", overrides=words))
    assert config["label_smoothing"] == 0.3
    assert config["lr"] == 7.0


def test_options_of_a_run_are_checked() -> None:
    options = RunOptions.from_config(composed("results_dir=here", "logger=none"))
    assert (options.results_dir, options.logger, options.force) == (Path("here"), "none", False)
    for word, message in [
        ("max_hours=-1", "max_hours came as -1; allowed: `float` > 0"),
        ("max_hours=soon", "max_hours came as 'soon'"),
        ("force=maybe", "force came as 'maybe'; allowed: `bool`"),
    ]:
        with pytest.raises(SanError, match=message):
            RunOptions.from_config(composed(word))


@pytest.mark.parametrize("word", ["seed=-1", "seed=1.5", "seed=True", "num_workers=-1"])
def test_numbers_of_a_run_are_checked(word: str, data_root: Path) -> None:
    key, _, value = word.partition("=")
    with pytest.raises(SanError, match=rf"{key} came as {value}"):
        from_config(composed(word, f"data_root={data_root}"))


def test_a_key_that_is_missing_is_named() -> None:
    keys = [key for key, value in composed().items() if value is not None]  # Hydra keeps a null
    assert {"seed", "lr", "data_root", *GROUPS, "data"} <= set(keys)
    assert len(keys) > 20
    for key in keys:
        with pytest.raises(SanError, match=rf"`{key}`; it is required. Leave out ~{key} or"):
            resolved(f"~{key}")


@pytest.mark.parametrize(
    "key",
    ["method.name", "backbone.normalize", "recipe.epochs", "recipe.lr", "recipe.lr.default"],
)
def test_a_key_that_others_are_made_of_is_named(key: str) -> None:
    with pytest.raises(SanError, match=r"no `[\w.]+`.* it is required\. Leave out ~" + key):
        resolved(f"~{key}", "method=lora")


@pytest.mark.parametrize("value", ["missing", None, 3.5])
def test_a_key_of_a_group_is_never_missed_in_a_trace(value: object, data_root: Path) -> None:
    whole = composed(f"data_root={data_root}")
    tried = 0
    for key, part in whole.items():
        places = [(key, None)]
        if isinstance(part, dict):
            places += [(key, inner) for inner in part]
        for outer, inner in places:
            config = copy.deepcopy(whole)
            node, leaf = (config, outer) if inner is None else (config[outer], inner)
            node[leaf] = value
            if value == "missing":
                del node[leaf]
            tried += 1
            try:
                from_config(config)
            except SanError as error:
                assert leaf in str(error) or outer in str(error), (outer, inner, error)
    assert tried > 55


@pytest.mark.parametrize("word", ["method=lora", "data=demo/count", "seed=3", "+seed=3"])
def test_what_a_sweep_would_swallow_is_refused(word: str) -> None:
    with pytest.raises(SanError, match=r"is one run's setting; --\w+ says which runs"):
        compose.compose_grid(["demo/digits"], ["linear"], [0], [word])
    (run,) = compose.compose_grid(["demo/digits"], ["lora"], [0], ["method.rank=4"])
    assert run.config["method"]["rank"] == 4
