"""The loss kernel: against float64 with ragged rows and blocks, strides, ignored targets and huge logits; the
operator; and single-line mutants that these cases must kill."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import kernels
from kernels.interpreter import faithful_interpreter
from kernels.linear_cross_entropy import kernel as shipped
from kernels.linear_cross_entropy.op import linear_cross_entropy_op
from kernels.linear_cross_entropy.testing import CASES, IGNORED, Case, by_kernel, failures, make_inputs


@pytest.fixture(autouse=True)
def memory_that_was_never_written_is_nan() -> Iterator[None]:
    """As PyTorch's deterministic mode leaves it."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_within_the_error_budget(case: Case) -> None:
    assert failures(case) == []


@st.composite
def cases(draw: Callable[..., object]) -> Case:
    def some(*options: object) -> object:
        return draw(st.sampled_from(options))

    dtype = some(torch.float32, torch.bfloat16, torch.float16)
    return Case(
        N=draw(st.integers(1, 7)), V=draw(st.integers(2, 140)), W=some(1, 8, 24), dtype=dtype,
        z_loss=some(0.0, 0.3), ignored_every=some(None, 1, 2, 5), tokens=draw(st.integers(1, 8)),
        columns=some(16, 64), spread=some(0.1, 3.0, 30.0 if dtype == torch.float16 else 1e3),
        strided=some(True, False), seed=draw(st.integers(0, 99)),
    )  # fmt: skip


@settings(max_examples=8, deadline=None, derandomize=True)
@given(cases())
def test_any_shape_is_within_the_error_budget(case: Case) -> None:
    assert failures(case) == []


def test_the_order_of_programs_does_not_change_a_bit() -> None:
    case = replace(CASES[0], dtype=torch.bfloat16)
    found = []
    for seed in (1, 2):
        with faithful_interpreter(order_seed=seed):
            found.append(by_kernel(case, make_inputs(case)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_ignored_rows_have_no_gradient_whatever_their_logits() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [torch.nan, torch.inf, 1.0]])
    losses = torch.empty(2)
    shipped.launch_block(logits, 3, torch.tensor([1, IGNORED]), losses, 0.1, IGNORED, True)
    assert losses[0] > 0
    assert losses[1] == 0
    assert (logits[1] == 0).all()


@pytest.mark.parametrize("stray", [-1, 3, 2**40])
def test_a_target_outside_the_vocabulary_is_seen(stray: int) -> None:
    logits, losses = torch.zeros(2, 3), torch.empty(2)
    shipped.launch_block(logits, 3, torch.tensor([stray, 1]), losses, 0.0, IGNORED, True)
    assert losses.isnan().tolist() == [True, False]
    assert logits.isnan().any(1).tolist() == [True, False]


def test_impossible_tokens_have_no_weight() -> None:
    """Minus infinity, as a mask of the vocabulary leaves it, in a whole part of the row."""
    logits = torch.full((1, 40), -torch.inf)
    logits[0, 35:] = torch.arange(5.0)
    wanted = logits.log_softmax(1)
    losses = torch.empty(1)
    shipped.launch_block(logits, 40, torch.tensor([36]), losses, 0.0, IGNORED, True, columns=16)
    torch.testing.assert_close(losses[0], -wanted[0, 36])
    torch.testing.assert_close(logits[0], wanted[0].exp() - torch.eye(40)[36])


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    given = make_inputs(Case(N=6, V=11, ignored_every=3))
    return given.hidden.requires_grad_(), given.weight.requires_grad_(), given.targets


@pytest.mark.parametrize("gradients", [True, False])
def test_opcheck(gradients: bool) -> None:
    torch.library.opcheck(
        linear_cross_entropy_op,
        (*arguments(), 0.1, IGNORED, gradients, True),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_compiles_into_one_graph_and_equals_pytorchs_operations() -> None:
    hidden, weight, targets = arguments()

    def gradients(by: Callable[..., Tensor], **settings: object) -> tuple[Tensor, ...]:
        loss = by(hidden, weight, targets, z_loss=0.2, **settings)
        return loss.detach(), *torch.autograd.grad(7 * loss, (hidden, weight))

    ours = gradients(kernels.linear_cross_entropy)
    compiled = gradients(torch.compile(kernels.linear_cross_entropy, fullgraph=True, backend="aot_eager"))
    plain = gradients(kernels.linear_cross_entropy, implementation=kernels.Implementation.reference)
    assert all(map(torch.equal, ours, compiled))
    assert not all(map(torch.equal, ours, plain)), "the same operations answered twice"
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


MUTANTS = {
    "return tl.where(at < V, x, float(\"-inf\"))": "return x",
    "tl.where(at < V, x": "tl.where(at <= V, x",
    "tl.load(row + at, mask=at < width,": "tl.load(row + at, mask=at <= width,",
    "higher = tl.maximum(peak, tl.max(x, 0))": "higher = tl.max(x, 0)",
    "total = total * tl.exp(peak - shift) + tl.sum": "total = total + tl.sum",
    "shift = tl.where(higher == float(\"-inf\"), 0.0, higher)": "shift = 0.0",
    "n.to(tl.int64) * width": "n.to(tl.int64) * V",
    "if target != ignored:": "if target >= 0 or target == ignored:",
    "hit = tl.load(row + target,": "hit = tl.load(row,",
    "lse = peak + tl.log(total)": "lse = tl.log(total)",
    "tl.log(total) - (hit - peak)": "tl.log(total) - hit",
    "z_loss * lse * lse)": "z_loss * lse)",
    "1.0 + 2.0 * z_loss * lse": "1.0 + z_loss * lse",
    ", float(\"nan\")) / total": ", float(\"nan\"))",
    "load_columns(row, at, width, V) - peak)": "load_columns(row, at, width, V))",
    "at == target, slope - 1.0, slope)": "at == target, slope - 1.0, 0.0)",
    "slope.to(row.dtype.element_ty), mask=at < width)": "slope.to(row.dtype.element_ty))",
    "tl.store(losses + n, 0.0)": "pass",
    "tl.zeros([COLS], row.dtype.element_ty), mask=at < width)": "tl.zeros([COLS], row.dtype.element_ty))",
    "for start in range(0, V, COLS):\n                at = start + tl.arange(0, COLS)\n                slope":
        "for start in range(0, V - COLS + 1, COLS):\n                at = start + tl.arange(0, COLS)\n                slope",
}  # fmt: skip


@pytest.mark.parametrize("line", MUTANTS)
def test_a_wrong_kernel_is_told(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(shipped.__file__).read_text()
    assert line in text, "the kernel no longer holds this line: renew the mutant"
    name = f"loss_mutant_{os.getpid()}_{list(MUTANTS).index(line)}"
    (tmp_path / f"{name}.py").write_text(text.replace(line, MUTANTS[line]))
    monkeypatch.syspath_prepend(tmp_path)
    mutant = importlib.import_module(name)
    try:
        said = any(failures(case, mutant) for case in CASES)
    except Exception as error:
        assert "outside every tensor" in str(error)
        said = True
    assert said
