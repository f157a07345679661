"""Saved adapters that answer: for a run's own test images, for odd files, without weights."""

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

import san
from san.backbones import build_backbone
from san.errors import (
    AdapterFileError,
    DataError,
    InvalidValueError,
    MissingFileError,
    UnknownNameError,
    WeightsError,
)
from san.predict.image_files import find_images, with_labels
from san.predict.program import PredictRequest, predict_files
from san.record_file import read_records
from san.run import run

ROOT = Path(__file__).parents[2]
NANO = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4}
CLASSES = tuple(f"digit {i}" for i in range(10))
USAGE = san.Usage(
    classes=CLASSES,
    timm_name="vit_tiny_patch16_224",
    image_size=32,
    resize="bicubic",
    normalize="inception",
    kwargs=NANO,
    weights="vit_nano.safetensors",
)


def nano(classes: int = 10):
    torch.manual_seed(0)
    return build_backbone(
        "vit_tiny_patch16_224", classes, "vit_nano.safetensors", kwargs=NANO
    ).model


def saved(path: Path, usage: san.Usage | None = USAGE, method: str = "san") -> Path:
    adapter = san.attach(nano(), method)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    adapter.save(path, usage)
    return path


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> san.Predictor:
    return san.load(saved(tmp_path_factory.mktemp("adapter") / "a.safetensors"))


def rewritten(path: Path, usage: str) -> Path:
    """Write an adapter's file again with another usage."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {"usage": usage})
    return path


def write_digits(folder: Path, counts: dict[str, int]) -> None:
    """Write digits of scikit-learn as FOLDER/SPLIT/CLASS/NUMBER.png."""
    digits = load_digits()
    number = 0
    for split, count in counts.items():
        for _ in range(count):
            place = folder / split / CLASSES[digits.target[number]]
            place.mkdir(parents=True, exist_ok=True)
            pixels = np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
            number += 1


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_predict_gives_the_runs_accuracy_from_the_file_alone(tmp_path: Path, capsys) -> None:
    images = tmp_path / "images"
    write_digits(images, {"train": 100, "val": 20, "test": 60})
    config = composed(
        "data=folder",
        f"data.root={images}",
        f"data_root={tmp_path / 'packed'}",
        f"results_dir={tmp_path / 'results'}",
        "backbone=vit_nano",
        "recipe=demo",
        "method=san",
        "epochs=1",
        "warmup_epochs=0",
        "logger=none",
        "device=cpu",
        "save_adapter=true",
    )
    run(config)
    records, _ = read_records(tmp_path / "results/records")
    (record,) = records
    (file,) = (tmp_path / "results").rglob("*.safetensors")
    moved = tmp_path / "elsewhere.safetensors"
    file.rename(moved)
    output = tmp_path / "answers.csv"
    assert predict_files(PredictRequest(moved, [images / "test"], output=output, top=3))
    rows = rows_of(output.read_text())
    assert len(rows) == 3 * record.last.total == 180
    best = [row for row in rows if row["rank"] == "1"]
    right = sum(row["class"] == row["label"] for row in best)
    assert right == record.last.correct
    assert 0 < right < 60
    assert all(Path(row["file"]).parent.name == row["label"] for row in best)
    by_class = {
        row["class"]: row for row in rows_of((tmp_path / "answers_classes.csv").read_text())
    }
    for score in record.classes:
        assert int(by_class[score.name]["correct"]) == score.correct
        assert int(by_class[score.name]["total"]) == score.total
    matrix = rows_of((tmp_path / "answers_confusion.csv").read_text())
    answered = Counter((row["label"], row["class"]) for row in best)
    assert len(matrix) == 10
    for row in matrix:
        assert [int(row[name]) for name in CLASSES] == [
            answered[row["class"], name] for name in CLASSES
        ]
    with Image.open(tmp_path / "answers_confusion.png") as picture:
        assert picture.size[0] > 1000
    printed = capsys.readouterr().out
    assert f"{right:>6} of     60" in printed.splitlines()[-1]
    assert all(name in printed for name in CLASSES)


def test_probabilities_are_those_of_the_model(tmp_path: Path) -> None:
    predictor = san.load(saved(tmp_path / "a.safetensors"))
    assert predictor.classes == CLASSES
    assert not any(module.training for module in predictor.adapter.model.modules())
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    paths = []
    for i, picture in enumerate(pictures):
        paths.append(tmp_path / f"{i}.png")
        picture.save(paths[-1])
    expected = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    model = nano()
    san.restore(model, tmp_path / "a.safetensors")
    with torch.inference_mode():
        logits = model.eval()(expected)
    for images in (paths, pictures, [str(path) for path in paths]):
        probabilities = predictor.predict(images)
        assert torch.allclose(probabilities, logits.double().softmax(1), atol=1e-5)
    assert torch.equal(predictor.predict(paths), predictor.predict(paths))
    assert torch.allclose(predictor.predict(paths, batch_size=2), predictor.predict(paths))
    assert predictor.predict([]).shape == (0, 10)


# Modes of Pillow that a TIFF file can have.
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK"]
DEEP_MODES = ["I", "F", "I;16", "I;16L", "I;16B"]


def drawn(mode: str) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    if mode == "RGBX":
        return Image.frombytes("RGBX", (30, 20), np.random.default_rng(0).bytes(2400))
    if mode.startswith("I;16"):
        return Image.frombytes(mode, (30, 20), np.full((20, 30), 1000, np.uint16).tobytes())
    return Image.fromarray(pixels).convert("L" if mode in ("I", "F") else mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_pil_image_is_read_like_its_file(mode: str, predictor: san.Predictor, tmp_path) -> None:
    picture = drawn(mode)
    assert picture.mode == mode
    picture.save(tmp_path / "a.tif")
    assert np.array_equal(predictor.pixels(picture), predictor.pixels(tmp_path / "a.tif"))


@pytest.mark.parametrize("mode", DEEP_MODES)
def test_a_deep_pil_image_is_refused_like_its_file(
    mode: str, predictor: san.Predictor, tmp_path: Path
) -> None:
    picture = drawn(mode).convert(mode)
    assert picture.mode == mode
    picture.save(tmp_path / "a.tif")
    for image in (picture, tmp_path / "a.tif"):
        with pytest.raises(DataError, match="more than 8 bits a channel"):
            predictor.predict([image])


def test_other_modes_are_read_or_refused_in_words(predictor: san.Predictor) -> None:
    for mode in ("HSV", "YCbCr"):
        assert predictor.pixels(drawn(mode)).shape == (32, 32, 3)
    assert predictor.pixels(Image.new("RGBa", (9, 9)))[0, 0].tolist() == [255, 255, 255]
    for mode in ("La", "I;16N"):
        with pytest.raises(DataError, match="The PIL image cannot be read"):
            predictor.pixels(Image.new(mode, (9, 9)))


def test_one_image_in_the_place_of_several_is_refused(predictor: san.Predictor) -> None:
    picture = Image.new("RGB", (9, 9))
    for one in ("abc.png", Path("abc.png"), picture, b"abc.png"):
        for call in ("predict", "prepare"):
            with pytest.raises(InvalidValueError, match=rf"predictor.{call}\(\[image\]\)"):
                getattr(predictor, call)(one)
    for wrong in (b"abc.png", torch.zeros(3, 32, 32), np.zeros((9, 9, 3)), None, 3):
        with pytest.raises(InvalidValueError, match="allowed: the path of a file, or a PIL image"):
            predictor.predict([picture, wrong])
    with pytest.raises(InvalidValueError, match="batch_size came as 0"):
        predictor.predict([picture], batch_size=0)
    with pytest.raises(InvalidValueError, match="no images"):
        predictor.prepare([])


def test_random_numbers_are_left_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    before = torch.random.get_rng_state()
    san.load(path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_file_says_how_it_is_used(tmp_path: Path) -> None:
    with safe_open(saved(tmp_path / "a.safetensors"), "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "san-adapter-1"
    assert json.loads(metadata["usage"]) == {
        "classes": list(CLASSES),
        "timm_name": "vit_tiny_patch16_224",
        "kwargs": NANO,
        "weights": "vit_nano.safetensors",
        "image_size": 32,
        "resize": "bicubic",
        "normalize": "inception",
        "precision": "fp32",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }


def test_an_old_file_is_restored_and_says_what_it_lacks(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    del metadata["usage"]  # so were files of before
    save_file(load_file(path), path, metadata)
    assert san.restore(nano(), path).method == "san"
    with pytest.raises(AdapterFileError, match="has no class names, input size, resize, normaliz"):
        san.load(path)
    assert san.load(path, usage=USAGE).classes == CLASSES
    without = saved(tmp_path / "b.safetensors", usage=None)
    with safe_open(without, "pt") as file:
        assert file.metadata().keys() == metadata.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "random"}, "was trained on random weights"),
        ({"weights": "nowhere/w.safetensors"}, "needs the weights that (.|\n)* --weights FILE"),
        ({"kwargs": {**NANO, "depth": 5}}, "needs the weights that"),
    ],
)
def test_weights_that_cannot_be_had(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    usage = san.Usage(**{**vars(USAGE), **changes})
    path = saved(tmp_path / "a.safetensors", usage)
    with pytest.raises(WeightsError, match=message) as caught:
        san.load(path)
    assert str(path) in str(caught.value)
    if "kwargs" not in changes:
        assert san.load(path, weights="vit_nano.safetensors").classes == CLASSES


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    other = {name: tensor + 1 for name, tensor in nano().state_dict().items()}
    save_file(other, tmp_path / "w.safetensors")
    with pytest.raises(AdapterFileError, match="with other weights or precision"):
        san.load(path, weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "usage",
    [
        "[]",
        "{",
        "{}",
        json.dumps({**USAGE.facts(), "mean": [0.1, 0.2, 0.3]}),
        json.dumps({**USAGE.facts(), "classes": "ab"}),
        json.dumps({**USAGE.facts(), "resize": "twice"}),
        json.dumps({**USAGE.facts(), "mean": 3}),
        json.dumps({**USAGE.facts(), "wings": 2}),
        json.dumps({**USAGE.facts(), "precision": "fp8"}),
    ],
)
def test_a_damaged_usage_is_refused(usage: str, tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path / "a.safetensors"), usage)
    with pytest.raises(AdapterFileError, match="has no readable usage"):
        san.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kwargs": {**NANO, "checkpoint_path": "TMP/none.pth"}}, "Unknown argument of vit_tiny"),
        ({"kwargs": {**NANO, "cache_dir": "TMP/cache"}}, "Unknown argument of vit_tiny"),
        ({"kwargs": {**NANO, "pretrained_cfg": "TMP/x"}}, "Unknown argument"),
        ({"kwargs": {**NANO, "pretrained_cfg_overlay": {"file": "TMP/x"}}}, "values in"),
        ({"kwargs": {**NANO, "pretrained": True}}, "Unknown argument"),
        ({"kwargs": {**NANO, "scriptable": True}}, "Unknown argument"),
        ({"kwargs": {**NANO, "num_classes": 5}}, "num_classes is not an option"),
        ({"kwargs": {**NANO, "device": "cuda"}}, "device is not an option"),
        ({"kwargs": {**NANO, "depth": 10**6}}, "asks for 1000000 blocks; at most 200"),
        ({"kwargs": {**NANO, "depth": -(10**6)}}, "asks for 1000000 blocks; at most 200"),
        ({"kwargs": {**NANO, "depths": [0] * 201}}, "asks for 207 blocks"),
        ({"kwargs": {**NANO, "embed_dim": 10**9}}, "sizes of .* at most 16384 are allowed"),
        ({"kwargs": {**NANO, "img_size": 10**6}}, "sizes of .* at most 16384 are allowed"),
        ({"kwargs": {**NANO, "norm_layer": {"a": [10**9]}}}, "values in values"),
        ({"kwargs": json.loads('{"a":' * 300 + "1" + "}" * 300)}, "values in values"),
        ({"kwargs": {**NANO, "img_size": [32, [10**9]]}}, "values in values"),
        ({"image_size": 64}, "takes no images of image_size 64"),
        ({"kwargs": {**NANO, "embed_dim": 8192}}, "has .* parameters; .* bytes in all"),
        ({"kwargs": {**NANO, "patch_size": 0}}, "timm cannot build"),
        ({"timm_name": "hf-hub:someone/model"}, "timm has no model called 'hf-hub:someone/model'"),
        ({"timm_name": "local-dir:TMP"}, "timm has no model called 'local-dir:"),
        ({"timm_name": "timm/vit_tiny_patch16_224"}, "timm has no model called"),
        ({"timm_name": "TMP/vit_tiny"}, "timm has no model called"),
        ({"timm_name": "resnet50"}, "No sites are known for a resnet50"),
        ({"timm_name": "vit_tiny_patch16_224.none"}, "timm cannot build"),
    ],
)
def test_a_hostile_usage_is_refused_before_timm_loads_anything(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.safetensors")
    usage = json.dumps({**USAGE.facts(), **changes}).replace("TMP", str(tmp_path))
    (tmp_path / "none.pth").write_bytes(b"a pickle")
    for loader in ("_factory.load_checkpoint", "_factory.load_model_config_from_hf"):
        monkeypatch.setattr(f"timm.models.{loader}", lambda *_args, **_kwargs: pytest.fail())
    with pytest.raises(AdapterFileError, match=f"names a backbone that is not built: .*{message}"):
        san.load(rewritten(path, usage))


def test_a_huge_input_is_refused(tmp_path: Path) -> None:
    usage = json.dumps({**USAGE.facts(), "image_size": 10**6})
    with pytest.raises(AdapterFileError, match="image_size came as 1000000; allowed"):
        san.load(rewritten(saved(tmp_path / "a.safetensors"), usage))


def test_a_usage_beside_that_of_the_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    other = san.Usage(**{**vars(USAGE), "resize": "vtab"})
    with pytest.raises(InvalidValueError, match="says itself how it is used"):
        san.load(path, usage=other)
    assert san.load(path, usage=USAGE).usage == USAGE


def test_as_many_classes_as_logits(tmp_path: Path) -> None:
    usage = san.Usage(**{**vars(USAGE), "classes": CLASSES[:9]})
    with pytest.raises(InvalidValueError, match="names 9 classes; the model has 10 logits"):
        saved(tmp_path / "a.safetensors", usage)
    assert not (tmp_path / "a.safetensors").exists()


def test_what_cannot_be_read_is_named_and_the_rest_is_answered(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    good = Image.new("RGB", (40, 30), "red")
    good.save(folder / "a.png")
    (folder / "b.jpg").write_bytes(b"no image")
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "d.heic").write_bytes(b"x")
    good.save(folder / "=cmd.png")
    with (folder / os.fsdecode(b"\xff.png")).open("wb") as file:  # not UTF-8
        good.save(file, format="PNG")
    good.save(folder / ".hidden.png")
    path = saved(tmp_path / "a.safetensors")
    assert not predict_files(PredictRequest(path, [folder], batch_size=2, top=99))
    out, err = capsys.readouterr()
    rows = rows_of(out)
    assert len(rows) == 3 * 10
    names = [row["file"] for row in rows if row["rank"] == "1"]
    assert names == [f"{folder}/=cmd.png", f"{folder}/a.png", f"{folder}/\\xff.png"]
    assert list(rows[0]) == ["file", "rank", "class", "probability"]
    total = sum(float(row["probability"]) for row in rows[:10])
    assert total == pytest.approx(1, abs=1e-4)
    assert f"{folder}/b.jpg cannot be read (it is not an image of a format" in err
    assert f"{folder}/c.png cannot be read" in err
    assert "{'.heic': 1}" in err
    assert "2 of 5 images have no answer." in err


def test_formulas_are_quoted(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save("=1+1.png")
    usage = san.Usage(**{**vars(USAGE), "classes": tuple("=-+@abcdef")})
    path = saved(tmp_path / "a.safetensors", usage)
    predict_files(PredictRequest(path, [Path("=1+1.png")], top=10))
    rows = rows_of(capsys.readouterr().out)
    assert {row["file"] for row in rows} == {"'=1+1.png"}
    assert {row["class"] for row in rows} == {"'=", "'-", "'+", "'@", *"abcdef"}


def test_labels_from_a_file(tmp_path: Path, capsys) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    path = saved(tmp_path / "a.safetensors")
    labels = tmp_path / "labels.csv"
    labels.write_text(f"file,class\na.png,digit 3\n{tmp_path}/b.png,digit 4\n")
    images = [tmp_path / f"{name}.png" for name in ("a", "b", "c")]
    assert predict_files(PredictRequest(path, images, labels=labels))
    out, err = capsys.readouterr()
    assert [row["label"] for row in rows_of(out)] == ["digit 3", "digit 4", ""]
    assert "Without a label, and not scored: 1 image" in err
    assert "digit 3       " in err
    labels.write_text("file,class\na.png,digit 33\n")
    with pytest.raises(UnknownNameError, match="Unknown class in .* Did you mean digit 3"):
        predict_files(PredictRequest(path, images, labels=labels))
    labels.write_text("name,class\na.png,digit 3\n")
    with pytest.raises(DataError, match="`file` and `class` are required"):
        predict_files(PredictRequest(path, images, labels=labels))
    labels.write_text("file,class\nz.png,digit 3\n")
    with pytest.raises(DataError, match="names none of the 3 images"):
        predict_files(PredictRequest(path, images, labels=labels))


def test_two_classes_of_one_file_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    found = find_images([tmp_path / "a.png"], CLASSES)
    labels = tmp_path / "labels.csv"
    row = "a.png,digit 3\n"
    for again in ("a.png", "./a.png", f"{tmp_path}/a.png"):
        labels.write_text(f"file,class\n{row}{again},digit 3\n")
        assert with_labels(found, labels, CLASSES).images[0].label == 3
        labels.write_text(f"file,class\n{row}{again},digit 4\n")
        said = "labels.csv has two classes for .*a.png: digit 3 and digit 4. Leave one"
        with pytest.raises(DataError, match=said):
            with_labels(found, labels, CLASSES)


def test_nothing_that_is_read_is_replaced(tmp_path: Path, capsys) -> None:
    write_digits(tmp_path / "images", {"test": 3})
    path = saved(tmp_path / "a.safetensors")
    (tmp_path / "adapter.csv").write_bytes(path.read_bytes())
    photo = tmp_path / "photo.csv"  # by what is in it
    Image.new("RGB", (9, 9)).save(photo, format="PNG")
    labels = tmp_path / "x_classes.csv"
    labels.write_text("file,class\nphoto.csv,digit 3\n")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    asked = {
        "the adapter": {"adapter": tmp_path / "adapter.csv", "output": tmp_path / "adapter.csv"},
        "an input image": {"output": photo},
        "the file of labels": {"output": tmp_path / "x.csv", "labels": labels},
    }
    for kind, words in asked.items():
        with pytest.raises(InvalidValueError, match=f"would be replaced, and is {kind}"):
            predict_files(PredictRequest(**{"adapter": path, "images": [photo], **words}))
    for name in ("a.safetensors", "images/a.png"):
        request = PredictRequest(path, [photo], output=tmp_path / name)
        with pytest.raises(InvalidValueError, match="allowed: a name that ends in .csv"):
            predict_files(request)
    assert not capsys.readouterr().out
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_a_link_is_written_through_and_a_dash_is_the_standard_output(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "a.safetensors")
    Image.new("RGB", (9, 9)).save("a.png")
    assert predict_files(PredictRequest(path, [Path("a.png")], output=Path("-")))
    out = capsys.readouterr().out
    assert len(rows_of(out)) == 1
    Path("link.csv").symlink_to("real.csv")
    for _ in range(2):
        assert predict_files(PredictRequest(path, [Path("a.png")], output=Path("link.csv")))
        assert Path("link.csv").is_symlink()
        assert Path("real.csv").read_text() == out
    there = {file.name for file in tmp_path.iterdir()}
    assert there == {"a.safetensors", "a.png", "link.csv", "real.csv"}


def test_another_file_of_a_run_is_told_from_its_adapter(tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    record.write_text('{"status": "done"}')
    answers = tmp_path / "answers.csv"
    answers.write_text("file,class\n")
    with pytest.raises(AdapterFileError, match="run.json is the record of a run, no adapter. Give"):
        san.load(record)
    with pytest.raises(AdapterFileError, match="answers.csv is a CSV file, no adapter. Give an"):
        san.load(answers)
    (tmp_path / "run.safetensors").touch()
    with pytest.raises(AdapterFileError, match=r"Its adapter is .*/run\.safetensors\.$"):
        san.load(record)
    with pytest.raises(AdapterFileError, match="run.safetensors cannot be read as an adapter"):
        san.load(tmp_path / "run.safetensors")
    with pytest.raises(AdapterFileError, match="gone.json does not exist"):
        san.load(tmp_path / "gone.json")


def test_labels_from_a_spreadsheet(tmp_path: Path, capsys) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    path = saved(tmp_path / "a.safetensors")
    labels = tmp_path / "labels.csv"
    request = PredictRequest(path, [tmp_path / "a.png"], labels=labels)
    labels.write_bytes(b"\xef\xbb\xbffile,class\r\n./a.png,digit 3\r\n")  # with Excel's mark
    assert predict_files(request)
    assert [row["label"] for row in rows_of(capsys.readouterr().out)] == ["digit 3"]
    odd = {
        b"file,class\r" + b"a.png,digit 3\r": "new-line character",
        b"file,class\n" + b"x" * 200_000 + b",digit 3\n": "field larger than",
        b"file;class\na.png;digit 3\n": "with commas between them",
        b"": "`file` and `class` are required",
    }
    for content, message in odd.items():
        labels.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            predict_files(request)
        assert str(labels) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"b\xe9\xe9s", "b\\xe9\\xe9s"),
        ("bées".encode(), "bées"),
        (b"a\tb", "a\\tb"),
        (b"n01440764", "n01440764 tench"),
    ],
)
def test_labels_of_folders_of_any_name(name: bytes, text: str, tmp_path: Path) -> None:
    """The class is stored as an own folder's is, see `san.run_outputs`."""
    folder = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(folder)).mkdir()
    file = Path(os.fsdecode(folder + b"/1.png"))
    file.write_bytes(b"x")
    classes = ["other", text]
    (image,) = find_images([tmp_path], classes).images
    assert image.label == 1
    assert image.name.isprintable()
    assert image.name.encode()
    labels = tmp_path / "labels.csv"
    unknown = find_images([file], classes)
    for written in (image.name, f"{text.partition(' ')[0]}/1.png"):
        labels.write_text(f"file,class\n{written},{text}\n", "utf-8")
        assert with_labels(unknown, labels, classes).images[0].label == 1


def test_the_home_folder_is_that_of_all_paths(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path / "a.safetensors")
    (tmp_path / "digit 3").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "digit 3/a.png")
    (tmp_path / "labels.csv").write_text("file,class\ndigit 3/a.png,digit 3\n")
    home = Path("~")
    request = PredictRequest(
        home / "a.safetensors",
        [home / "digit 3"],
        labels=home / "labels.csv",
        output=home / "out/x.csv",
    )
    assert predict_files(request)
    assert "digit 3" in capsys.readouterr().out
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written >= {"x.csv", "x_classes.csv", "x_confusion.csv"}


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        find_images([tmp_path / "nowhere"], CLASSES)
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no image files \(there are {'.heic': 1}\)"):
        find_images([tmp_path], CLASSES)
    for wrong in ({"top": 0}, {"batch_size": -1}):
        with pytest.raises(InvalidValueError, match="allowed: 1 or more"):
            PredictRequest(tmp_path / "a", [tmp_path], **wrong)


def test_a_link_that_leads_back_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "x/a.png")
    (tmp_path / "x/again").symlink_to(tmp_path)
    assert [image.path.name for image in find_images([tmp_path], CLASSES).images] == ["a.png"]


def test_a_picture_needs_an_extra_and_the_rest_does_not(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    write_digits(tmp_path / "images", {"test": 12})
    path = saved(tmp_path / "a.safetensors")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    output = tmp_path / "out.csv"
    assert predict_files(PredictRequest(path, [tmp_path / "images/test"], output=output))
    written = {file.name for file in tmp_path.glob("out*")}
    assert written == {"out.csv", "out_classes.csv", "out_confusion.csv"}
    assert "No figures without matplotlib" in capsys.readouterr().err


def test_the_program_ends_with_1_where_an_image_has_no_answer(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    words = [path, "--top", "2", tmp_path / "a.png", tmp_path / "b.png", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/predict.py", *map(str, words)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert [row["rank"] for row in rows_of(done.stdout)] == ["1", "2"]
    assert "b.png cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_tasks_in_one_backbone(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", method="san")
    model = nano()
    one = san.restore(model, tmp_path / "a.safetensors")
    images = torch.randn(2, 3, 32, 32)
    ten = model.eval()(images)
    one.disable()
    model.reset_classifier(3)
    two = san.attach(model, "lora")
    assert model.eval()(images).shape == (2, 3)
    two.disable()
    one.enable()
    assert torch.equal(model(images), ten)
