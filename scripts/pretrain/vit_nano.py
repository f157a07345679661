"""Pre-train `vit_nano`, the small ViT that ships with the project, on procedural images.

    python scripts/pretrain/vit_nano.py --images 1500000 --seed 0 --out san/weights

writes `vit_nano.safetensors` (backbone only, float16) and `vit_nano.md` (its model card).
"""

import argparse
import datetime
import itertools
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from canvas import SIZE, draw_class
from glyphs import GLYPHS, Alphabet, Drawings, draw_glyphs, make_alphabet
from safetensors.torch import save_file
from scenes import HEADS, Scenes, compose_scenes
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

DRAWINGS_PER_GLYPH = 200  # held in memory; they are redrawn as training goes on
VALIDATION_SCENES = 5120  # unseen scenes on which the card's accuracies are measured
VALIDATION_BATCH = 256
LOG_EVERY = 200  # steps between log lines and snapshots
PATCH = 8
EMBED_DIM = 128


class PretrainingModel(nn.Module):
    """The backbone with the heads that it is trained through.

    heads: one linear layer for each label, on the class token;
    layers: one linear layer on each patch token, for the masks that its pixels are made of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = VisionTransformer(
            img_size=SIZE,
            patch_size=PATCH,
            embed_dim=EMBED_DIM,
            depth=6,
            num_heads=4,
            num_classes=0,
        )
        self.heads = nn.ModuleDict()
        for name, classes in HEADS.items():
            self.heads[name] = nn.Linear(EMBED_DIM, classes)
        self.layers = nn.Linear(EMBED_DIM, 3 * PATCH**2)

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the logits of each head `(B, classes)`, and those of the layers `(B, 16, 192)`."""
        features = self.backbone.forward_features(images)
        class_token = features[:, 0]
        patch_tokens = features[:, 1:]
        logits = {name: head(class_token) for name, head in self.heads.items()}
        return logits, self.layers(patch_tokens)


def scene_batches(
    alphabet: Alphabet, batch_size: int, seed: int, easy: int = 0
) -> Iterator[Scenes]:
    """Yield batches without end, growing to full hardness over the first `easy` scenes.

    One glyph drawing in the pool is replaced for every fourth scene.
    """
    g = torch.Generator().manual_seed(seed)
    if easy:
        pool = _draw_pool(alphabet, DRAWINGS_PER_GLYPH, 0.0, g)
    else:
        pool = _draw_pool(alphabet, min(DRAWINGS_PER_GLYPH, 20), 1.0, g)
    count = len(pool.masks)
    batches_per_redraw = max(1, 4 * GLYPHS // batch_size)
    served = 0
    for row in itertools.cycle(range(0, count, GLYPHS)):
        hardness = min(1.0, served / easy) if easy else 1.0
        for _ in range(batches_per_redraw):
            pick = draw_class(g, count, batch_size)
            yield compose_scenes(alphabet, pool, pick, hardness, g)
            served += batch_size
        redrawn = draw_glyphs(alphabet, hardness, g)
        pool.masks[row : row + GLYPHS] = redrawn.masks
        pool.centers[row : row + GLYPHS] = redrawn.centers


def compute_losses(model: PretrainingModel, scenes: Scenes) -> dict[str, Tensor]:
    """Return the loss of each head and of the layers, by name.

    Heads: mean cross-entropy over the images that have the label. Layers: ten times the mean
    binary cross-entropy over pixels.
    """
    all_logits, layer_logits = model(scenes.images)
    losses = {}
    for name, logits in all_logits.items():
        labels = scenes.labels[name]
        total = F.cross_entropy(logits, labels, reduction="sum")
        labelled = (labels >= 0).sum()
        losses[name] = total / labelled.clamp(min=1)
    patches = _cut_patches(scenes.layers)
    losses["layers"] = 10 * F.binary_cross_entropy_with_logits(layer_logits, patches)
    return losses


@torch.no_grad()
def evaluate(model: PretrainingModel, alphabet: Alphabet, seed: int) -> dict[str, float]:
    """Return the accuracy of each head, in [0, 1], on freshly drawn scenes never trained on."""
    correct = dict.fromkeys(HEADS, 0)
    total = dict.fromkeys(HEADS, 0)
    stream = scene_batches(alphabet, VALIDATION_BATCH, seed)
    for scenes in itertools.islice(stream, VALIDATION_SCENES // VALIDATION_BATCH):
        all_logits, _ = model(scenes.images)
        for name, logits in all_logits.items():
            labels = scenes.labels[name]
            labelled = labels >= 0
            hits = logits.argmax(1) == labels
            correct[name] += int(hits[labelled].sum())
            total[name] += int(labelled.sum())
    return {name: correct[name] / total[name] for name in HEADS}


def train(
    alphabet: Alphabet, images: int, batch_size: int, lr: float, seed: int, out: Path
) -> PretrainingModel:
    """Train on `images` scenes with AdamW, 2 % warm-up and cosine decay.

    The weights are written to `out` now and then, and at the end.
    """
    torch.manual_seed(seed)
    model = PretrainingModel()
    steps = images // batch_size
    optimizer = _make_optimizer(model, lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.02)
    stream = scene_batches(alphabet, batch_size, seed + 1, easy=images // 2)
    begin = time.monotonic()
    for step, scenes in enumerate(itertools.islice(stream, steps), 1):
        losses = compute_losses(model, scenes)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % LOG_EVERY == 0 or step == steps:
            rate = step * batch_size / (time.monotonic() - begin)
            minutes_left = (images - step * batch_size) / rate / 60
            values = " ".join(f"{name} {value.item():.2f}" for name, value in losses.items())
            progress = f"{step}/{steps} {rate:.0f} img/s {minutes_left:.0f} min left"
            print(f"{progress}: {values}", flush=True)
            save_backbone(model, out / "vit_nano.safetensors")
    return model


def save_backbone(model: PretrainingModel, path: Path) -> None:
    """Write the backbone's tensors as float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = model.backbone.state_dict()
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path)


def _draw_pool(alphabet: Alphabet, per_glyph: int, hardness: float, g: torch.Generator) -> Drawings:
    """Draw `per_glyph` versions of every glyph."""
    drawn = [draw_glyphs(alphabet, hardness, g) for _ in range(per_glyph)]
    masks = torch.cat([drawings.masks for drawings in drawn])
    centers = torch.cat([drawings.centers for drawings in drawn])
    return Drawings(masks, centers)


def _cut_patches(layers: Tensor) -> Tensor:
    """Rearrange `(B, 3, 32, 32)` to the pixels of each patch, `(B, 16, 192)`."""
    side = SIZE // PATCH
    patches = layers.view(-1, 3, side, PATCH, side, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(-1, side**2, 3 * PATCH**2)


def _make_optimizer(model: PretrainingModel, lr: float) -> torch.optim.Optimizer:
    """Return AdamW, which decays matrices but neither biases nor norms."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": 0.05},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


CARD = """# vit_nano

A small Vision Transformer (timm, {parameters:,} parameters, 32 x 32 px, patch 8, width 128,
depth 6) pre-trained on procedural images: 128 invented glyphs, 32 wave textures, hues, positions,
nine solid shapes and their side of the glyph; and, from each patch token, the layers (glyph, shape,
texture) that its pixels were painted from.
No photographs, no digits, none of the demo suite's label rules.

- Made by: `{command}`
- Date: {date}; {minutes:.0f} minutes, {threads} thread(s) of {machine}; torch {torch}
- Input: RGB in [0, 1], normalized with mean 0.5 and std 0.5. Tensors are stored as float16.
- Accuracy on unseen scenes: {scores}
"""


def write_card(
    model: PretrainingModel, accuracies: dict[str, float], seconds: float, path: Path
) -> None:
    """Write and print the model card."""
    scores = [
        f"{name} {100 * accuracy:.1f} % of {HEADS[name]} classes"
        for name, accuracy in accuracies.items()
    ]
    card = CARD.format(
        parameters=sum(p.numel() for p in model.backbone.parameters()),
        command=" ".join(["python", *sys.argv]),
        date=datetime.date.today(),
        minutes=seconds / 60,
        threads=torch.get_num_threads(),
        machine=platform.machine(),
        torch=torch.__version__,
        scores=", ".join(scores),
    )
    path.write_text(card, "utf-8")
    print(card)


def main() -> None:
    """Parse arguments, train, write weights and card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=1_500_000, help="training scenes (each is seen once)"
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("san/weights"))
    args = parser.parse_args()
    begin = time.monotonic()
    alphabet = make_alphabet(args.seed)
    model = train(alphabet, args.images, args.batch, args.lr, args.seed, args.out)
    accuracies = evaluate(model.eval(), alphabet, seed=args.seed + 2)
    write_card(model, accuracies, time.monotonic() - begin, args.out / "vit_nano.md")


if __name__ == "__main__":
    main()
