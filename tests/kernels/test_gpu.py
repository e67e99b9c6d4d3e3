"""The interpreter's cases, and the whole grid, on a real GPU; and the comparison that a card must pass."""

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


def test_norm_and_rotation_are_within_one_rounding() -> None:
    from kernels.norm_rotary.testing import CASES, wrong

    assert {case: said for case in CASES if (said := wrong(case, device="cuda"))} == {}


def test_the_loss_is_within_its_error_budget() -> None:
    from kernels.linear_cross_entropy.testing import CASES, failures

    assert {case: said for case in CASES if (said := failures(case, device="cuda"))} == {}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_the_kernels_pass_the_comparison_of_a_card(head_dim: int, dtype: str) -> None:
    from kernels.selfcheck import Subject, shortfall

    assert shortfall(Subject(head_dim=head_dim, dtype=dtype, windowed=True, device="cuda")) is None


def test_two_backwards_agree_to_the_bit() -> None:
    q = torch.randn(4, 8, 1000, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    once, again = (torch.autograd.grad(kernels.attention(q, q, q, causal=True).sum(), q)[0] for _ in range(2))
    assert torch.equal(once, again)
