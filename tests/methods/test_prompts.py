"""Prompts of a ViT and in the windows of a Swin."""

import pytest
import torch
from conftest import tiny_convnext, tiny_swin, tiny_vit

import san
from san.errors import InvalidValueError
from san.layers.prompted_windows import PromptedWindowAttention


@pytest.mark.parametrize("deep", [False, True])
def test_prompts_of_a_swin_stay_with_their_image(deep: bool) -> None:
    model = tiny_swin().double().eval()
    san.attach(model, "vpt_deep", deep=deep)
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    alone = torch.cat([model(image.unsqueeze(0)) for image in images])
    assert torch.allclose(model(images), alone, atol=1e-12)
    assert not torch.allclose(model(images), tiny_swin().double().eval()(images), atol=1e-3)


def test_shallow_prompts_of_a_swin_refuse_gradient_checkpointing() -> None:
    model = san.attach(tiny_swin(), "vpt_shallow").model
    model.set_grad_checkpointing(True)
    logits = model(torch.randn(2, 3, 32, 32))
    with pytest.raises(InvalidValueError, match="Shallow prompts cannot be recomputed in a Swin"):
        logits.sum().backward()


def test_attention_of_windows_without_prompts_is_the_stock_one() -> None:
    windows = torch.randn(8, 16, 16, dtype=torch.float64)
    no_prompts = torch.empty(2, 0, 16, dtype=torch.float64)
    blocks = tiny_swin().double().eval().layers[0].blocks
    assert [block.attn_mask is not None for block in blocks] == [False, True]
    for block in blocks:
        ours = PromptedWindowAttention(block.attn, keep=True).eval()
        mask = block.attn_mask if block.attn_mask is None else block.attn_mask.double()
        ours.normed.put(no_prompts)
        assert torch.allclose(ours(windows, mask), block.attn(windows, mask), atol=1e-12)


def test_each_image_drops_its_own_prompts() -> None:
    prompts = san.attach(tiny_vit(), "vpt_shallow", dropout=0.5).model.blocks[0].prompts.train()
    torch.manual_seed(0)
    one, two = prompts(2)
    assert not torch.equal(one, two)
    assert torch.equal(prompts.eval()(2)[1], prompts.tokens[0])


def test_prompts_are_appended_where_asked() -> None:
    x = torch.randn(1, 5, 32)
    placed = []
    for position in ("prepend", "append"):
        model = san.attach(tiny_vit().eval(), "vpt_shallow", position=position).model
        placed += model.blocks[0].prompts.pre_block(model.blocks[0], (x,))
    prepended, appended = placed
    assert torch.equal(prepended[:, :1], x[:, :1])
    assert torch.equal(prepended[:, 6:], x[:, 1:])
    assert torch.equal(appended[:, :5], x)
    assert prepended.shape == appended.shape == (1, 10, 32)


def test_prompts_need_attention() -> None:
    for method in ("vpt_shallow", "vpt_deep"):
        with pytest.raises(
            InvalidValueError, match=f"'{method}' cannot be used on a ConvNeXt: it has no attention"
        ):
            san.attach(tiny_convnext(), method)
