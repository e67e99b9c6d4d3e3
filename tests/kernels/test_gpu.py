"""On a real GPU: the interpreter's cases, the whole grid, and the shipped tiles at every head dimension and
type, forward and backward; the public calls, compiled; and the comparisons that a card must pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import kernels
from kernels.attention.api import without_tile

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the kernels stay unproved on one"),
]
DEVICE = "cuda"
PARTS = 8
WITHOUT_TILE = without_tile(torch.device(DEVICE), 16, torch.bfloat16)
needs_a_tile = pytest.mark.skipif(WITHOUT_TILE != "", reason=WITHOUT_TILE)


@needs_a_tile
@pytest.mark.parametrize("part", range(PARTS))
def test_within_the_error_budget(part: int) -> None:
    from kernels.testing import CASES, failures, grid

    cases = [*CASES, *grid()][part::PARTS]
    assert {case: said for case in cases if (said := failures(case, device=DEVICE))} == {}


@needs_a_tile
@pytest.mark.parametrize("part", range(PARTS))
def test_the_shipped_tiles_are_within_the_error_budget(part: int) -> None:
    from kernels.testing import failures, shipped_cases

    every = shipped_cases(tokens=333)
    cases = [case for case in every if not without_tile(torch.device(DEVICE), case.D, case.dtype)][
        part::PARTS
    ]
    assert {case: said for case in cases if (said := failures(case, device=DEVICE))} == {}


def test_norm_and_rotation_are_within_one_rounding() -> None:
    from kernels.norm_rotary.testing import CASES, wrong

    assert {case: said for case in CASES if (said := wrong(case, device=DEVICE))} == {}


def test_the_loss_is_within_its_error_budget() -> None:
    from kernels.linear_cross_entropy.testing import CASES, failures

    assert {case: said for case in CASES if (said := failures(case, device=DEVICE))} == {}


@needs_a_tile
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_the_kernels_pass_the_comparison_of_a_card(head_dim: int, dtype: str) -> None:
    from kernels.selfcheck import Subject, shortfall

    assert shortfall(Subject(head_dim=head_dim, dtype=dtype, windowed=True, device=DEVICE)) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_loss_passes_the_comparison_of_a_card(dtype: str) -> None:
    from kernels.linear_cross_entropy.selfcheck import Subject

    assert Subject(vocab_size=4099, width=64, dtype=dtype, device=DEVICE).shortfall() is None


def attend(x: Tensor, lengths: Tensor, sink: Tensor) -> Tensor:
    out, lse = kernels.attention(
        x, x[:, :2], x[:, 2:], causal=True, window=50, cu_seqlens=lengths, softcap=9.0, sink=sink,
        return_lse=True,
    )  # fmt: skip
    return out.square().sum() + lse.sum()


def rotate(x: Tensor, _: Tensor, gain: Tensor) -> Tensor:
    angle = torch.arange(8.0, device=x.device) * torch.arange(x.shape[1], device=x.device).unsqueeze(1)
    return kernels.norm_rotary(x, gain.repeat(4), angle.cos(), angle.sin(), eps=1e-6).square().sum()


def lose(x: Tensor, _: Tensor, bias: Tensor) -> Tensor:
    hidden = x.flatten(0, 2) + bias.repeat(4)
    targets = torch.arange(len(hidden), device=x.device) % 50
    return kernels.linear_cross_entropy(hidden, hidden[:50], targets, z_loss=0.1)


@pytest.mark.parametrize("call", [pytest.param(attend, marks=needs_a_tile), rotate, lose])
def test_a_public_call_compiled_into_one_graph_is_the_same(call: Callable[..., Tensor]) -> None:
    """Gradients too, in autocast, for several numbers of tokens."""
    compiled = torch.compile(call, fullgraph=True, dynamic=True)
    for tokens in (70, 133):
        x = torch.randn(1, 4, tokens, 16, device=DEVICE).requires_grad_()
        other = torch.randn(4, device=DEVICE).requires_grad_()
        lengths = torch.tensor([0, 9, 9, tokens], device=DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16):
            losses = [by(x, lengths, other) for by in (call, compiled)]
        ours, eager = ((loss.detach(), *torch.autograd.grad(loss, (x, other))) for loss in losses)
        for a, b in zip(ours, eager, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


@needs_a_tile
def test_two_backwards_agree_to_the_bit() -> None:
    q = torch.randn(4, 8, 1000, 64, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    once, again = (torch.autograd.grad(kernels.attention(q, q, q, causal=True).sum(), q)[0] for _ in range(2))
    assert torch.equal(once, again)
