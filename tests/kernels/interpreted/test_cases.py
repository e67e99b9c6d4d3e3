"""Forward and gradients within twice eager's error of the float64 truth, for every feature."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention.backward import launch_backward, launch_delta
from kernels.attention.forward import launch_forward
from kernels.interpreter import faithful_interpreter
from kernels.testing import CASES, Case, Layout, failures, make_inputs, shipped_cases


@pytest.mark.parametrize("case", CASES, ids=str)
def test_within_the_error_budget(case: Case) -> None:
    assert failures(case) == []


@pytest.mark.parametrize("case", shipped_cases(tokens=23), ids=str)
def test_every_head_dim_and_type(case: Case) -> None:
    assert failures(case) == []


@st.composite
def cases(draw: Callable[..., object]) -> Case:
    def some(*options: object) -> object:
        return draw(st.sampled_from(options))

    T_q, T_k = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    cut = draw(st.none() | st.integers(0, T_q))
    lengths = None if cut is None else tuple(length for length in (cut, T_q - cut) if length)
    K = some(1, 2)
    return Case(
        B=some(1, 2), K=K, H=K * some(1, 2), T_q=T_q, T_k=T_k if lengths is None else T_q, D=some(16, 48),
        dtype=some(torch.float32, torch.bfloat16, torch.float16), causal=some(True, False),
        window=draw(st.none() | st.integers(1, 60)), softcap=some(None, 2.0), lengths=lengths,
        sink=some(True, False), layouts=tuple(some(*Layout) for _ in range(4)),
        tile=(some(16, 32), some(16, 32)), seed=draw(st.integers(0, 99)),
    )  # fmt: skip


@settings(max_examples=12, deadline=None, derandomize=True)
@given(cases())
def test_any_shape_is_within_the_error_budget(case: Case) -> None:
    assert failures(case) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_softcap_in_16_bits(dtype: torch.dtype) -> None:
    assert failures(Case(T_q=33, T_k=33, H=1, softcap=1.5, dtype=dtype)) == []


def test_a_query_that_sees_no_key_gives_zeros_and_no_gradient() -> None:
    case = Case(T_q=40, T_k=20)
    given = make_inputs(case)
    out, lse = launch_forward(given.q, given.k, given.v, case.options, tile=case.tiles[0])
    delta = launch_delta(out, given.dout)
    dq, dk, dv = launch_backward(given.dout, given.q, given.k, given.v, lse, delta, case.options)
    assert (out[:, :, :20] == 0).all()
    assert (lse[:, :, :20] == -torch.inf).all()
    assert (dq[:, :, :20] == 0).all()
    assert all(tensor.isfinite().all() for tensor in (out, dq, dk, dv))


def test_the_order_of_programs_does_not_change_a_bit() -> None:
    case = Case(T_q=45, T_k=45, H=4, K=2, B=2, dtype=torch.bfloat16)
    first = gradients_in_order(case, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, gradients_in_order(case, 2), strict=True))


def gradients_in_order(case: Case, seed: int) -> tuple[torch.Tensor, ...]:
    given = make_inputs(case)
    with faithful_interpreter(order_seed=seed):
        out, lse = launch_forward(given.q, given.k, given.v, case.options)
        delta = launch_delta(out, given.dout)
        return out, lse, *launch_backward(given.dout, given.q, given.k, given.v, lse, delta, case.options)


def test_documents_far_apart_cost_no_visit() -> None:
    """Keys and values of other documents' tiles are never read: were they NaN, the result is the same."""
    case = Case(T_q=64, T_k=64, lengths=(32, 32), tile=(16, 16))
    given = make_inputs(case)
    out, _ = launch_forward(given.q, given.k, given.v, case.options, given.documents, tile=case.tiles[0])
    k, v = given.k.clone(), given.v.clone()
    k[:, :, :32], v[:, :, :32] = torch.nan, torch.nan
    blind, _ = launch_forward(given.q, k, v, case.options, given.documents, tile=case.tiles[0])
    assert torch.equal(out[:, :, 32:], blind[:, :, 32:])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_hidden(bad: float) -> None:
    """Queries that see a key of NaN or infinity say so, in the log-sum-exp as well; those of tiles before it
    are as without it."""
    case = Case(T_q=40, T_k=40, tile=(16, 16), sink=True)
    given = make_inputs(case)
    k = given.k.clone()
    k[:, :, 33] = bad
    runs = [
        launch_forward(given.q, k, given.v, case.options, None, given.sink, case.tiles[0])
        for k in (given.k, k)
    ]
    for good, found in zip(*runs, strict=True):
        assert torch.equal(found[:, :, :32], good[:, :, :32])
        assert found[:, :, 33:].isnan().all()


def test_a_window_skips_the_tiles_before_it() -> None:
    case = Case(T_q=64, T_k=64, window=5, tile=(16, 16))
    given = make_inputs(case)
    out, _ = launch_forward(given.q, given.k, given.v, case.options, tile=case.tiles[0])
    k = given.k.clone()
    k[:, :, :32] = torch.nan
    blind, _ = launch_forward(given.q, k, given.v, case.options, tile=case.tiles[0])
    assert torch.equal(out[:, :, 48:], blind[:, :, 48:])
