"""The interpreter's cases on a real GPU, with the tiles of the case and with those of the card."""

from __future__ import annotations

import pytest
import torch

import kernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the kernels stay unproved on one"),
]


def cases() -> list[object]:
    pytest.importorskip("triton")
    from kernels.testing import CASES, grid

    return [*CASES, *grid()]


@pytest.mark.parametrize("number", range(7 + 252))
def test_within_the_error_budget(number: int) -> None:
    from kernels.testing import failures

    assert failures(cases()[number], device="cuda") == []


def test_two_backwards_agree_to_the_bit() -> None:
    q = torch.randn(4, 8, 1000, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    once, again = (torch.autograd.grad(kernels.attention(q, q, q, causal=True).sum(), q)[0] for _ in range(2))
    assert torch.equal(once, again)
