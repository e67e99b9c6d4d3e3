"""Norm and rotation in one pass: against float64, with strides, ragged tiles, several tiles a program; the
operator; and single-line mutants that these cases must kill."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

import kernels
from kernels.attention.problem import MAX_STRIDE
from kernels.norm_rotary import kernel as shipped
from kernels.norm_rotary.op import norm_rotary_op
from kernels.norm_rotary.testing import CASES, EPS, Case, make_inputs, wrong


@pytest.mark.parametrize("case", CASES, ids=str)
def test_within_one_rounding_of_the_truth(case: Case) -> None:
    assert wrong(case) == []


def test_a_program_with_several_tiles_sums_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "PROGRAMS", 2)
    monkeypatch.setattr(shipped, "ELEMENTS", 128)
    assert wrong(CASES[0]) == []


def test_two_runs_agree_to_the_bit() -> None:
    given = make_inputs(CASES[0])
    runs = [shipped.launch_backward(given.dy, given.x, given.gain, given.cos, given.sin, EPS) for _ in "ab"]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def arguments() -> tuple[Tensor, ...]:
    given = make_inputs(Case(1, 5, 2, 16, strided=False))
    return given.x.requires_grad_(), given.gain.requires_grad_(), given.cos, given.sin


def test_opcheck() -> None:
    torch.library.opcheck(norm_rotary_op, (*arguments(), EPS))


def test_compiles_into_one_graph_and_equals_eager() -> None:
    x, gain, cos, sin = arguments()

    def loss(x: Tensor, gain: Tensor) -> Tensor:
        return (kernels.norm_rotary(x, gain, cos, sin, eps=EPS) ** 2 * sin.sum()).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(x, gain), (x, gain))
    assert all(map(torch.equal, ours, torch.autograd.grad(loss(x, gain), (x, gain))))


def test_a_derivative_that_the_kernel_does_not_have_is_refused() -> None:
    x, gain, cos, sin = arguments()

    def turned(x: Tensor) -> Tensor:
        return kernels.norm_rotary(x, gain, cos, sin, eps=EPS)

    with pytest.raises(TypeError, match="no forward-mode"):
        torch.func.jvp(turned, (x.detach(),), (x.detach(),))
    (dx,) = torch.autograd.grad(turned(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        dx.sum().backward()


def test_a_row_whose_elements_lie_far_apart_is_copied() -> None:
    """Offsets within a tile are 32-bit."""
    x, gain, cos, sin = (tensor.detach() for tensor in arguments())
    far = torch.empty(MAX_STRIDE * 15 + 256, dtype=x.dtype).as_strided(x.shape, (160, 32, 16, MAX_STRIDE))
    far = far.copy_(x).requires_grad_()
    near = x.clone().requires_grad_()
    found = [kernels.norm_rotary(each, gain, cos, sin, eps=EPS) for each in (far, near)]
    assert torch.equal(*found)
    (dx,), (true,) = (torch.autograd.grad(y, each, far) for y, each in zip(found, (far, near), strict=True))
    assert torch.equal(dx, true)


MUTANTS = {
    "(token % T).to(tl.int64) * stride_t": "(token).to(tl.int64) * stride_t",
    "(row % H).to(tl.int64) * stride_h": "(row % H).to(tl.int64) * stride_d",
    "(token // T).to(tl.int64) * stride_b": "(token // H).to(tl.int64) * stride_b",
    "at = (row // H % T)[:, None] * HALF": "at = (row % T)[:, None] * HALF",
    "squares / (2 * HALF) + eps": "squares / (HALF + 1) + eps",
    "a * c - b * s, b * c + a * s, mask)": "a * c + b * s, b * c - a * s, mask)",
    "da, db = dy_1 * c + dy_2 * s, dy_2 * c - dy_1 * s": "da, db = dy_1 * c - dy_2 * s, dy_2 * c + dy_1 * s",
    "sum_1 += tl.sum(da * x_1 * scale, 0)": "sum_1 += tl.sum(da * x_1, 0)",
    "sum_2 += tl.sum(db * x_2 * scale, 0)": "sum_2 = tl.sum(db * x_2 * scale, 0)",
    "da, db = da * gain_1, db * gain_2": "da, db = da, db * gain_2",
    "* scale * scale / (2 * HALF)": "* scale / (2 * HALF)",
    "scale * (db - x_2 * along)": "scale * db",
    "tl.program_id(0) * 2 * HALF + column": "tl.program_id(0) * HALF + column",
}


@pytest.mark.parametrize("line", MUTANTS)
def test_a_wrong_kernel_is_told(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(shipped.__file__).read_text()
    assert line in text, "the kernel no longer holds this line: renew the mutant"
    name = f"norm_rotary_mutant_{list(MUTANTS).index(line)}"
    (tmp_path / f"{name}.py").write_text(text.replace(line, MUTANTS[line]))
    monkeypatch.syspath_prepend(tmp_path)
    mutant = importlib.import_module(name)
    monkeypatch.setattr(mutant, "PROGRAMS", 2)
    monkeypatch.setattr(mutant, "ELEMENTS", 128)
    try:
        said = wrong(CASES[0], mutant) or wrong(CASES[1], mutant)
    except Exception as error:
        assert "outside every tensor" in str(error)
        said = ["a stray address"]
    assert said
