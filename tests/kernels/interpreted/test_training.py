"""A few steps of training with the kernels beside the same steps with the references, and the comparisons
that a card must pass, both with the kernels interpreted."""

from __future__ import annotations

import pytest
import torch

from harness.model.attention import build_attention
from harness.model.init import build_model
from harness.model.loss import build_loss
from harness.model.settings import AttentionKind, InitConfig, LossKind, ParametrizationConfig
from harness.shape import ModelConfig, build_shape
from kernels.linear_cross_entropy.selfcheck import Subject as LossSubject
from kernels.selfcheck import Subject, shortfall

STEPS = 3
CONFIG = ModelConfig(
    name="tiny",
    width=32,
    depth=2,
    n_heads=2,
    n_kv_heads=1,
    head_dim=16,
    mlp_hidden=48,
    window=9,
    full_every=2,
)
SHAPE = build_shape(CONFIG, vocab_size=64, context=21)


def losses(kind: AttentionKind, loss_kind: LossKind = LossKind.full) -> torch.Tensor:
    """Of `STEPS` steps of AdamW, and after them."""
    where = SHAPE, torch.device("cpu"), torch.float32
    attention, head = build_attention(kind, *where), build_loss(loss_kind, *where)
    assert (attention.name, head.name) == (kind.value, loss_kind.value)
    model = build_model(
        SHAPE, attention.attend, InitConfig(), ParametrizationConfig(), seed=0, loss=head.loss
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(STEPS + 1):
        windows = torch.randint(64, (1, 22), generator=random)
        loss = model.loss(windows[:, :-1], windows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


@pytest.mark.parametrize("loss_kind", [LossKind.full, LossKind.triton])
def test_training_with_the_kernels_is_training_with_the_reference(loss_kind: LossKind) -> None:
    """Adam turns a rounding of a small gradient into one of a step of the size of the learning rate, so the
    noise is that between two PyTorch attentions that sum in another order."""
    by_reference = losses(AttentionKind.reference)
    noise = (losses(AttentionKind.sdpa) - by_reference).abs().max()
    gap = (losses(AttentionKind.triton, loss_kind) - by_reference).abs().max()
    assert gap <= 4 * noise + 4 * torch.finfo(torch.float32).eps * by_reference.max()
    assert by_reference[-1] != by_reference[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernels_pass_the_comparison_of_a_card(dtype: str) -> None:
    assert (
        shortfall(Subject(head_dim=16, dtype=dtype, windowed=True, device="cpu"), sizes=((40, 2, 1),)) is None
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loss_kernel_passes_the_comparison_of_a_card(dtype: str) -> None:
    assert LossSubject(vocab_size=97, width=16, dtype=dtype, device="cpu").shortfall() is None
