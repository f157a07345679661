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
from safetensors.torch import save_file
from scenes import GLYPHS, HEADS, Alphabet, alphabet, glyph_masks, scenes
from timm import create_model
from torch import Tensor, nn

POOL = 200  # drawings of every glyph held in memory; they are redrawn as training goes on
VALIDATION = 5120  # unseen scenes on which the card's accuracies are measured
PATCH = 8
ARCHITECTURE = {
    "img_size": 32,
    "patch_size": PATCH,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "num_classes": 0,
}


def draw_pool(
    classes: Alphabet, per_glyph: int, hardness: float, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw `per_glyph` versions of every glyph: uint8 masks `(per_glyph * GLYPHS, 32, 32)` and centres `(.., 2)`."""
    drawn = [glyph_masks(classes.curves, hardness, g) for _ in range(per_glyph)]
    return torch.cat([(255 * m).byte() for m, _ in drawn]), torch.cat([c for _, c in drawn])


def batches(
    classes: Alphabet, size: int, seed: int, easy: int = 0
) -> Iterator[tuple[Tensor, dict[str, Tensor], Tensor]]:
    """Endless composed scenes, growing to full hardness over the first `easy` of them.

    One glyph drawing in the pool is replaced for every fourth scene.
    """
    g = torch.Generator().manual_seed(seed)
    masks, centres = draw_pool(classes, POOL if easy else min(POOL, 20), 0 if easy else 1, g)
    served = 0
    for row in itertools.cycle(range(0, len(masks), GLYPHS)):
        hardness = min(1, served / easy) if easy else 1
        for _ in range(max(1, 4 * GLYPHS // size)):
            yield scenes(
                classes,
                masks,
                centres,
                torch.randint(0, len(masks), (size,), generator=g),
                hardness,
                g,
            )
            served += size
        redrawn, moved = glyph_masks(classes.curves, hardness, g)
        masks[row : row + GLYPHS], centres[row : row + GLYPHS] = (255 * redrawn).byte(), moved


class Nano(nn.Module):
    """The backbone with one linear head per label on its class token, and one on its patch tokens for the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = create_model("vit_tiny_patch16_224", **ARCHITECTURE)
        self.heads = nn.ModuleDict(
            {k: nn.Linear(ARCHITECTURE["embed_dim"], n) for k, n in HEADS.items()}
        )
        self.layers = nn.Linear(ARCHITECTURE["embed_dim"], 3 * PATCH**2)

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Images `(B, 3, 32, 32)` to logits per head, and to the logits `(B, 16, 192)` of every patch's layers."""
        features = self.backbone.forward_features(images)
        return {name: head(features[:, 0]) for name, head in self.heads.items()}, self.layers(
            features[:, 1:]
        )


def losses(
    model: Nano, images: Tensor, labels: dict[str, Tensor], layers: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy per head over the images that its label speaks of, and ten times that of the layers' pixels."""
    logits, drawn = model(images)
    known = {k: (labels[k] >= 0).sum().clamp(min=1) for k in logits}
    loss = {k: F.cross_entropy(v, labels[k], reduction="sum") / known[k] for k, v in logits.items()}
    side = 32 // PATCH
    wanted = (
        layers.view(-1, 3, side, PATCH, side, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(drawn.shape)
    )
    return loss | {"layers": 10 * F.binary_cross_entropy_with_logits(drawn, wanted)}


@torch.no_grad()
def accuracy(model: Nano, classes: Alphabet, seed: int) -> dict[str, float]:
    """Share of correct labels per head on freshly drawn scenes never trained on."""
    hits, seen = dict.fromkeys(HEADS, 0), dict.fromkeys(HEADS, 0)
    for images, labels, _ in itertools.islice(batches(classes, 256, seed), VALIDATION // 256):
        for name, logits in model(images)[0].items():
            known = labels[name] >= 0
            hits[name] += int((logits.argmax(1) == labels[name])[known].sum())
            seen[name] += int(known.sum())
    return {name: hits[name] / seen[name] for name in HEADS}


def train(images: int, batch: int, lr: float, seed: int, out: Path) -> tuple[Nano, Alphabet]:
    """Train on `images` scenes with AdamW, 2 % warm-up and cosine decay; keep a snapshot of the weights as it goes."""
    torch.manual_seed(seed)
    model, classes, steps = Nano(), alphabet(seed), images // batch
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.02)
    stream = batches(classes, batch, seed + 1, easy=images // 2)
    begin = time.monotonic()
    for step, scene in enumerate(itertools.islice(stream, steps), 1):
        parts = losses(model, *scene)
        loss = torch.stack(list(parts.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            rate = step * batch / (time.monotonic() - begin)
            left = (images - step * batch) / rate / 60
            now = " ".join(f"{k} {v.item():.2f}" for k, v in parts.items())
            print(f"{step}/{steps} {rate:.0f} img/s {left:.0f} min left: {now}", flush=True)
            save(model, out / "vit_nano.safetensors")
    return model, classes


def save(model: Nano, path: Path) -> None:
    """Write the backbone's tensors as float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in model.backbone.state_dict().items()}, path)


CARD = """# vit_nano

A small Vision Transformer (timm, {parameters:,} parameters, 32 x 32 px, patch 8, width 128, depth 6) pre-trained on
procedural images: 128 invented glyphs, 32 wave textures, hues, positions, nine solid shapes and their side of the
glyph; and, from each patch token, the layers (glyph, shape, texture) that its pixels were painted from.
No photographs, no digits, none of the demo suite's label rules.

- Made by: `{command}`
- Date: {date}; {minutes:.0f} minutes, {threads} thread(s) of {machine}; torch {torch}
- Input: RGB in [0, 1], normalised with mean 0.5 and std 0.5. Tensors are stored as float16.
- Accuracy on unseen scenes: {scores}
"""


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
    model, classes = train(args.images, args.batch, args.lr, args.seed, args.out)
    scores = accuracy(model.eval(), classes, seed=args.seed + 2)
    card = CARD.format(
        parameters=sum(p.numel() for p in model.backbone.parameters()),
        command=" ".join(["python", *sys.argv]),
        date=datetime.date.today(),
        minutes=(time.monotonic() - begin) / 60,
        threads=torch.get_num_threads(),
        machine=platform.machine(),
        torch=torch.__version__,
        scores=", ".join(f"{k} {100 * v:.1f} % of {HEADS[k]} classes" for k, v in scores.items()),
    )
    (args.out / "vit_nano.md").write_text(card)
    print(card)


if __name__ == "__main__":
    main()
