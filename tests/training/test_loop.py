"""Schedule, recipe, training and evaluation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_vit
from torch import nn

import san
from san.data.batches import Batches, Shard
from san.data.preprocess import Preprocess
from san.data.split import Images, Split
from san.errors import NonFiniteLossError
from san.training.loop import check_gradients, evaluate, fit
from san.training.optimizer import make_optimizer
from san.training.recipe import Recipe
from san.training.schedule import lr_at

CPU = torch.device("cpu")
RECIPE = {
    "epochs": 2,
    "batch_size": 4,
    "optimizer": "adamw",
    "lr": 1e-2,
    "weight_decay": 1e-2,
    "momentum": 0.9,
    "warmup_epochs": 1,
    "label_smoothing": 0.0,
    "precision": "fp32",
}


class Recorded:
    """Callbacks that keep what they hear."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.losses: list[float] = []
        self.lrs: list[float] = []

    def on_step_end(self, step: int, steps: int, loss: float, lr: float) -> None:
        self.steps.append((step, steps))

    def on_epoch_end(self, epoch: int, mean_loss: float, lr: float) -> None:
        self.losses.append(mean_loss)
        self.lrs.append(lr)


def split(count: int = 10) -> Split:
    g = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = (g.integers(0, 100, (count, 16, 16, 3)) + 50 * labels[:, None, None, None]).astype(
        np.uint8
    )
    return Split(
        (Images(images),), labels, [str(i) for i in range(count)], "f", ({"made_by": "a test"},)
    )


def batches(shuffle: bool = True) -> Batches:
    return Batches(
        split=split(),
        batch_size=4,
        preprocess=Preprocess("vtab", "inception"),
        image_size=16,
        device=CPU,
        generator=torch.Generator().manual_seed(0) if shuffle else None,
    )


def test_schedule_at_its_corners() -> None:
    assert lr_at(0, 100, 10, 1.0) == pytest.approx(0.1)
    assert lr_at(9, 100, 10, 1.0) == pytest.approx(1.0)
    assert lr_at(10, 100, 10, 1.0) == pytest.approx(1.0)
    assert lr_at(55, 100, 10, 1.0) == pytest.approx(0.5)
    assert lr_at(100, 100, 10, 1.0) == pytest.approx(0.0)
    assert lr_at(0, 10, 0, 1.0) == pytest.approx(1.0)
    assert lr_at(3, 5, 10, 1.0) == pytest.approx(0.4)  # a warm-up longer than the run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs came as 0; allowed: `int` >= 1"),
        ({"epochs": 2.5}, r"epochs came as 2\.5; allowed: `int`"),
        ({"epochs": True}, "epochs came as True; allowed: `int`"),
        ({"lr": -1}, "lr came as -1; allowed: `float` > 0"),
        ({"lr": float("nan")}, "lr came as nan"),
        ({"lr": "fast"}, "lr came as 'fast'; allowed: `float`"),
        ({"batch_size": 0}, "batch_size came as 0; allowed: `int` >= 1"),
        ({"weight_decay": -1e-3}, "weight_decay came as"),
        ({"momentum": 1}, "momentum came as 1"),
        ({"warmup_epochs": -1}, "warmup_epochs came as -1"),
        ({"label_smoothing": 1.0}, "label_smoothing came as"),
        ({"lr": float("inf")}, "lr came as inf; allowed: a finite number"),
    ],
)
def test_recipes_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**RECIPE | change)


def test_unknown_optimizer_and_precision() -> None:
    with pytest.raises(LookupError, match=r"Unknown optimizer 'adam'\. Did you mean adamw"):
        Recipe(**RECIPE | {"optimizer": "adam"})
    with pytest.raises(LookupError, match=r"Unknown precision 'fp16'\. Did you mean bf16"):
        Recipe(**RECIPE | {"precision": "fp16"})


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fit_learns_and_reports(optimizer: str, precision: str) -> None:
    recipe = Recipe(**RECIPE | {"epochs": 12, "optimizer": optimizer, "precision": precision})
    model = tiny_vit(3)
    adapter = san.attach(model, "full")
    heard = Recorded()
    seconds = fit(model, batches(), recipe, adapter.trainable, heard)
    losses = heard.losses
    assert heard.steps == [(i + 1, 36) for i in range(36)]
    assert len(losses) == 12
    assert heard.lrs == [lr_at(step, 36, 3, recipe.lr) for step in range(2, 36, 3)]
    assert losses[-1] < 0.7 * losses[0]
    assert seconds > 0
    score = evaluate(model, batches(shuffle=False), 12, precision).score
    assert score.total == 10
    assert score.correct >= 7


def test_same_seed_same_weights() -> None:
    ends = []
    for _ in range(2):
        model = tiny_vit(3)
        trainable = san.attach(model, "san").trainable
        fit(model, batches(), Recipe(**RECIPE), trainable, Recorded())
        ends.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(ends[0], ends[1])


def test_matrices_decay_and_vectors_do_not() -> None:
    model = tiny_vit(3)
    san.attach(model, "full")
    matrices, vectors = make_optimizer(model, Recipe(**RECIPE)).param_groups
    assert matrices["weight_decay"] == 1e-2
    assert vectors["weight_decay"] == 0
    assert {p.ndim for p in vectors["params"]} == {1}
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    model = tiny_vit(3)
    adapter = san.attach(model, "linear")
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(
        NonFiniteLossError, match=r"The loss became nan at step 1 of 6 with lr 0\.00333"
    ):
        fit(model, batches(), Recipe(**RECIPE), adapter.trainable, Recorded())


def test_broken_weights_have_no_score() -> None:
    model = tiny_vit(3)
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="the weights are broken"):
        evaluate(model, batches(shuffle=False), 1)


def test_gradients_on_another_set_are_refused() -> None:
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    with pytest.raises(
        RuntimeError, match="1 parameters train that should not, or should and do not: bias"
    ):
        check_gradients(layer, ["weight"])


def test_evaluation_equals_counting_by_hand() -> None:
    model = tiny_vit(3).eval()
    data = batches(shuffle=False)
    with torch.no_grad():
        logits = model(
            data.preprocess.scale(
                torch.from_numpy(data.preprocess.pixels(data.split, range(10), 16))
            )
        )
    evaluation = evaluate(model, data, 7)
    score = evaluation.score
    assert score.epoch == 7
    by_hand = [logits.argmax(1).tolist()[i] == data.split.labels[i] for i in range(10)]
    assert 0 < sum(by_hand) < 10
    assert evaluation.answers.dtype == np.bool_
    assert evaluation.answers.tolist() == by_hand
    assert score.correct == sum(by_hand)
    assert score.loss == pytest.approx(
        nn.functional.cross_entropy(logits, torch.from_numpy(data.split.labels)).item(), rel=1e-5
    )
    assert score.accuracy == 10 * score.correct


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_answer_each_image_once_in_the_order_of_the_split(world_size: int) -> None:
    """Of the last batch, of two images, most ranks have none."""
    model = tiny_vit(3).eval()
    whole = evaluate(model, batches(shuffle=False), 1).answers.astype(int)
    everything_right = np.zeros(10, int)
    taken = np.zeros(10, int)
    for rank in range(world_size):
        data = replace(batches(shuffle=False), shard=Shard(rank, world_size))
        everything_right += evaluate(model, data, 1).answers
        np.add.at(taken, data.stored_rows().numpy(), 1)
    assert taken.tolist() == [1] * 10
    assert everything_right.tolist() == whole.tolist()
    assert 0 < whole.sum() < 10


def test_restricted_evaluation_predicts_only_classes_that_the_split_has() -> None:
    model = tiny_vit(8).eval()
    data = batches(shuffle=False)  # labels 0, 1, 2 of 8
    with torch.no_grad():
        model.head.bias[5] = 100.0
        model.head.bias[1] = 50.0
        logits = model(
            data.preprocess.scale(
                torch.from_numpy(data.preprocess.pixels(data.split, range(10), 16))
            )
        )
    wanted = (logits[:, :3].argmax(1).numpy() == data.split.labels).sum()
    assert evaluate(model, data, 1).score.correct == 0
    score = evaluate(model, data, 1, only_present_classes=True).score
    assert score.correct == wanted > 0
    assert score.loss == pytest.approx(
        nn.functional.cross_entropy(logits[:, :3], torch.from_numpy(data.split.labels)).item(),
        rel=1e-5,
    )
