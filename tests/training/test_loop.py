"""Schedule, recipe, training and evaluation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import RECIPE, tiny_convnext, tiny_vit
from torch import nn

import san
from san.data.batches import Batches, Shard
from san.data.preprocess import Preprocess
from san.data.split import Images, Split
from san.errors import NonFiniteLossError
from san.training.head import init_classifier
from san.training.loop import check_gradients, evaluate, fit
from san.training.optimizer import make_optimizer
from san.training.recipe import Recipe
from san.training.schedule import Schedule, lr_at

CPU = torch.device("cpu")


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
        ({"betas": [0.9]}, r"betas came as \[0\.9\]; allowed"),
        ({"betas": [0.9, 1.0]}, r"betas came as \[0\.9, 1\.0\]; allowed"),
        ({"drop_path": 1.0}, r"drop_path came as 1\.0; allowed"),
        ({"clip_grad": 0}, "clip_grad came as 0; allowed"),
        ({"ema_decay": 1.0}, r"ema_decay came as 1\.0; allowed"),
        ({"layer_decay": 0.0}, r"layer_decay came as 0\.0; allowed"),
        ({"layer_decay": 1.1}, r"layer_decay came as 1\.1; allowed"),
        ({"head_lr": 0.0}, r"head_lr came as 0\.0; allowed"),
        ({"drop_last": 1}, "drop_last came as 1; allowed: `bool`"),
        ({"eval_batch_size": 0}, "eval_batch_size came as 0; allowed"),
    ],
)
def test_recipes_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**RECIPE | change)


def test_unknown_optimizer_and_precision() -> None:
    with pytest.raises(LookupError, match=r"Unknown optimizer 'adam'\. Did you mean adamw"):
        Recipe(**RECIPE | {"optimizer": "adam"})
    with pytest.raises(LookupError, match=r"Unknown weight_decay_on 'none'"):
        Recipe(**RECIPE | {"weight_decay_on": "none"})
    with pytest.raises(LookupError, match=r"Unknown head_init 'zeros'\. Did you mean zero"):
        Recipe(**RECIPE | {"head_init": "zeros"})
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


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_steps_are_the_same_up_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def traced(model: nn.Module, **options: object) -> object:
        calls.append(options)
        return compiler(model, backend="eager", fullgraph=True, **options)

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    ends = []
    for compiled in (False, True):
        model = tiny_vit(3)
        trainable = san.attach(model, "san").trainable
        fit(model, batches(), Recipe(**RECIPE), trainable, Recorded(), compiled=compiled)
        assert type(model) is type(tiny_vit(3))
        ends.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.allclose(*ends, atol=1e-5)
    assert calls == [{"dynamic": False}]


def test_matrices_decay_and_vectors_do_not() -> None:
    model = tiny_vit(3)
    san.attach(model, "full")
    matrices, vectors = make_optimizer(model, Recipe(**RECIPE)).param_groups
    assert matrices["weight_decay"] == 1e-2
    assert vectors["weight_decay"] == 0
    assert {p.ndim for p in vectors["params"]} == {1}
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


class Watched(Recorded):
    """Callbacks that keep the trained weights after each step, and what an epoch's end sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.after_steps: list[torch.Tensor] = []
        self.after_epochs: list[torch.Tensor] = []

    def weights(self) -> torch.Tensor:
        trained = [p.detach().flatten() for p in self.model.parameters() if p.requires_grad]
        return torch.cat(trained)

    def on_step_end(self, step: int, steps: int, loss: float, lr: float) -> None:
        super().on_step_end(step, steps, loss, lr)
        self.after_steps.append(self.weights())

    def on_epoch_end(self, epoch: int, mean_loss: float, lr: float) -> None:
        super().on_epoch_end(epoch, mean_loss, lr)
        self.after_epochs.append(self.weights())


def watched(method: str = "san", **changes: object) -> Watched:
    """Train a small model; return what was seen."""
    model = tiny_vit(3)
    trainable = san.attach(model, method).trainable
    seen = Watched(model)
    seen.start = seen.weights()
    fit(model, batches(), Recipe(**RECIPE | changes), trainable, seen)
    return seen


@pytest.mark.parametrize("method", ["san", "full"])
def test_the_average_is_the_one_by_hand_and_is_what_remains(method: str) -> None:
    seen = watched(method, ema_decay=0.6)
    plain = watched(method)
    assert len(seen.after_steps) == 6
    average = seen.start
    for step, (weights, alone) in enumerate(zip(seen.after_steps, plain.after_steps, strict=True)):
        assert torch.equal(weights, alone)  # training itself is the same
        average = 0.6 * average + 0.4 * weights
        if step % 3 == 2:
            torch.testing.assert_close(seen.after_epochs[step // 3], average, rtol=0, atol=1e-6)
    assert torch.equal(seen.weights(), seen.after_epochs[-1])
    assert not torch.allclose(seen.weights(), seen.after_steps[-1], atol=1e-4)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    """A step of SGD without momentum is the gradient times the rate."""
    settings = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0}
    for method in ("san", "full"):
        plain = watched(method, **settings)
        clipped = watched(method, **settings, clip_grad=1e-3)
        loose = watched(method, **settings, clip_grad=1e6)
        moved = plain.after_steps[0] - plain.start
        norm = moved.norm() / 1e-2
        assert norm > 1e-2
        wanted = plain.start + moved * 1e-3 / norm
        torch.testing.assert_close(clipped.after_steps[0], wanted, rtol=0, atol=1e-7)
        assert torch.equal(loose.weights(), plain.weights())


def test_each_group_has_the_rate_of_its_peak_and_layer() -> None:
    """AdamW's first step is as long as its rate, whatever the gradient."""
    changes = {"weight_decay": 0.0, "warmup_epochs": 0, "head_lr": 1e-4, "layer_decay": 0.5}
    model = tiny_vit(3)
    trainable = san.attach(model, "full").trainable
    seen = Watched(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    after: dict[str, torch.Tensor] = {}

    def keep(step: int, *_: object) -> None:
        if step == 1:
            after.update({name: p.detach().clone() for name, p in model.named_parameters()})

    seen.on_step_end = keep  # type: ignore[method-assign]
    fit(model, batches(), Recipe(**RECIPE | changes), trainable, seen)
    wanted = {
        "head.weight": 1e-4,
        "blocks.1.mlp.fc1.weight": 1e-2 / 2,
        "blocks.0.mlp.fc1.weight": 1e-2 / 4,
        "patch_embed.proj.weight": 1e-2 / 8,
    }
    for name, rate in wanted.items():
        assert (after[name] - before[name]).abs().max() == pytest.approx(rate, rel=1e-2), name
    assert seen.lrs == [lr_at(step, 6, 0, 1e-2) for step in (2, 5)]  # that of `lr`


def test_a_cooldown_adds_epochs_at_the_lowest_rate() -> None:
    seen = watched(schedule=Schedule(min_lr=1e-5, cooldown_epochs=2))
    assert len(seen.steps) == seen.steps[-1][1] == 4 * 3
    assert len(seen.lrs) == 4
    assert seen.lrs[2:] == [1e-5, 1e-5]


def test_an_incomplete_last_batch_may_be_left_out() -> None:
    model = tiny_vit(3)
    trainable = san.attach(model, "linear").trainable
    heard = Recorded()
    data = replace(batches(), drop_last=True)
    assert [len(labels) for _, labels in data] == [4, 4]
    fit(model, data, Recipe(**RECIPE), trainable, heard)
    assert heard.steps == [(i + 1, 4) for i in range(4)]


def head_of(init: str, seed: int = 0) -> nn.Linear:
    model = tiny_vit(100, weight_init="")
    torch.manual_seed(seed)
    init_classifier(model, init)
    return model.head


def test_heads_begin_as_they_are_told() -> None:
    built = tiny_vit(100).head
    assert torch.equal(head_of("timm").weight, built.weight)
    assert torch.equal(head_of("timm").bias, built.bias)
    zero = head_of("zero")
    assert zero.weight.count_nonzero() == zero.bias.count_nonzero() == 0
    default = head_of("torch")
    torch.manual_seed(0)
    alone = nn.Linear(32, 100)
    assert torch.equal(default.weight, alone.weight)
    assert torch.equal(default.bias, alone.bias)
    vpt = head_of("vpt")
    assert vpt.weight.std().item() == pytest.approx((2 / 100) ** 0.5, rel=0.05)  # fan-out 100
    assert abs(vpt.weight.mean().item()) < 0.01
    assert vpt.bias.tolist() == pytest.approx([-math.log(99)] * 100)
    assert torch.equal(head_of("vpt").weight, vpt.weight)
    assert not torch.equal(head_of("vpt", seed=1).weight, vpt.weight)
    convnext = tiny_convnext(5)
    norm = convnext.head.norm.weight.clone()
    init_classifier(convnext, "zero")
    assert convnext.head.fc.weight.count_nonzero() == 0
    assert torch.equal(convnext.head.norm.weight, norm)


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
