"""The interpreter's cases, and the whole grid, on a real GPU."""

from __future__ import annotations

import pytest
import torch

import kernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the kernels stay unproved on one"),
]


PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_within_the_error_budget(part: int) -> None:
    from kernels.testing import CASES, failures, grid

    cases = [*CASES, *grid()][part::PARTS]
    assert {case: said for case in cases if (said := failures(case, device="cuda"))} == {}


def test_two_backwards_agree_to_the_bit() -> None:
    q = torch.randn(4, 8, 1000, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    once, again = (torch.autograd.grad(kernels.attention(q, q, q, causal=True).sum(), q)[0] for _ in range(2))
    assert torch.equal(once, again)
