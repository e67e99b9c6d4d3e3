"""The fast cases are a test of the kernels only if a wrong kernel fails them: every single-line mutant dies.

Each mutant is a copy of the kernel modules with one line changed, run on the one case that should kill it
(by a budget, by NaN or by a stray address).
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest
import torch

import kernels.attention.primitives  # noqa: F401
from kernels.testing import Case, Layout, failures

SOURCE = Path(sys.modules["kernels.attention.primitives"].__file__).parent
MODULES = ("primitives", "forward", "backward")
NUMBERS = count()

CAUSAL = Case(T_q=21, T_k=37, H=1, tile=(16, 16))
WINDOW = Case(T_q=40, T_k=40, H=1, window=9, tile=(16, 16))
BOTH_SIDES = Case(T_q=40, T_k=40, H=1, window=9, tile=(16, 16), causal=False)
DOCUMENTS = Case(T_q=36, T_k=36, H=1, B=2, lengths=(5, 31), tile=(16, 16), causal=False)
WIDE = Case(T_q=80, T_k=80, H=1, window=40, tile=(16, 16))
SEEN_LATE = Case(T_q=36, T_k=36, H=1, lengths=(20, 16), tile=(32, 16))
EMPTY = Case(T_q=34, T_k=16, H=1, tile=(16, 32))
GROUPED = Case(T_q=16, T_k=16, H=4, K=2, tile=(16, 16))
STRIDED = Case(
    T_q=17,
    T_k=17,
    H=1,
    D=48,
    tile=(16, 16),
    layouts=(Layout.packed, Layout.transposed, Layout.tokens_first, Layout.packed),
)
CAPPED = Case(T_q=17, T_k=17, H=1, softcap=0.7, tile=(16, 16))
CAPPED_16_BITS = replace(CAPPED, dtype=torch.bfloat16)
SINK = Case(T_q=17, T_k=17, H=2, sink=True, tile=(16, 16))


@dataclass(frozen=True)
class Mutant:
    module: str
    line: str
    instead: str
    case: Case
    which: int = 0


def in_(module: str, line: str, instead: str, case: Case, which: int = 0) -> Mutant:
    return Mutant(module, line, instead, case, which)


MUTANTS = [
    in_("primitives", "position = row + (T_k - T_q)", "position = row", CAUSAL),
    in_("primitives", "hi = tl.maximum(position + 1, 0)", "hi = tl.maximum(position, 0)", CAUSAL),
    in_("primitives", "hi = tl.maximum(position + 1, 0)", "hi = position + 1", EMPTY),
    in_("primitives", "lo = tl.maximum(lo, position - window + 1)", "lo = tl.maximum(lo, position - window)", WINDOW),
    in_("primitives", "hi = tl.maximum(tl.minimum(hi, position + window), 0)", "hi = tl.minimum(hi, position + window + 1)", BOTH_SIDES),
    in_("primitives", "tl.load(starts + b * T_q + row)", "tl.load(starts + row)", DOCUMENTS),
    in_("primitives", "tl.load(ends + b * T_q + row)", "tl.load(ends + row)", DOCUMENTS),
    in_("primitives", "position = row - (T_k - T_q)", "position = row", CAUSAL),
    in_("primitives", "lo = tl.maximum(lo, position)", "lo = tl.maximum(lo, position + 1)", CAUSAL),
    in_("primitives", "hi = tl.maximum(tl.minimum(hi, position + window), 0)", "hi = tl.minimum(hi, position + window - 1)", WINDOW, 1),
    in_("primitives", "lo = tl.maximum(lo, position - window + 1)", "lo = tl.maximum(lo, position - window)", BOTH_SIDES, 1),
    in_("primitives", "tl.load(starts + b * T_k + row)", "tl.load(starts + row)", DOCUMENTS),
    in_("primitives", "tl.load(ends + b * T_k + row)", "tl.load(ends + row)", DOCUMENTS),
    in_("primitives", "whole = tl.minimum(tl.cdiv(tl.max(lo, 0), COLS) * COLS, last)", "whole = tl.minimum(tl.max(lo, 0) // COLS * COLS, last)", WINDOW),
    in_("primitives", "tl.maximum(tl.min(hi, 0) // COLS * COLS, whole)", "tl.maximum(tl.max(hi, 0) // COLS * COLS, whole)", CAUSAL),
    in_("primitives", "tl.maximum(tl.min(hi, 0) // COLS * COLS, whole)", "tl.maximum(tl.cdiv(tl.min(hi, 0), COLS) * COLS, whole)", CAUSAL),
    in_("primitives", "first = tl.min(lo, 0) // COLS * COLS", "first = tl.cdiv(tl.min(lo, 0), COLS) * COLS", WINDOW),
    in_("primitives", "tl.where(at < whole, 0, partial - whole)", "tl.where(at <= whole, 0, partial - whole)", CAUSAL),
    in_("primitives", "tl.where(at < whole, 0, partial - whole)", "0", CAUSAL),
    in_("primitives", "end = last - (partial - whole)", "end = last - partial", WIDE),
    in_("primitives", "column[None, :] < hi[:, None]", "column[None, :] <= hi[:, None]", CAUSAL),
    in_("primitives", "column[None, :] >= lo[:, None]", "column[None, :] > lo[:, None]", CAUSAL),
    in_("primitives", "mask = above & below", "mask = above", WINDOW),
    in_("primitives", "mask = above & below", "mask = below", WINDOW),
    in_("forward", "BOTH: tl.constexpr = WINDOW or DOCUMENTS", "BOTH: tl.constexpr = False", WINDOW),
    in_("backward", "BOTH: tl.constexpr = WINDOW or DOCUMENTS", "BOTH: tl.constexpr = False", WINDOW),
    in_("backward", "BOTH: tl.constexpr = WINDOW or DOCUMENTS", "BOTH: tl.constexpr = False", WINDOW, 1),
    in_("primitives", "mask = (rows < T)[:, None]\n", "mask = (rows <= T)[:, None]\n", CAUSAL),
    in_("primitives", "mask = (columns < D)[None, :]", "mask = (columns <= D)[None, :]", STRIDED),
    in_("primitives", "tl.load(base + at, mask=at < T, other=0.0)", "tl.load(base + at)", CAUSAL),
    in_("primitives", "mask=within(start, T, ROWS, WIDTH, D, RAGGED), other=0.0)", "mask=within(start, T, ROWS, WIDTH, D, RAGGED))", CAUSAL),
    in_("primitives", "x + x * square * series, y)", "x + square * series, y)", CAPPED),
    in_("primitives", "(1.0 - shrunk) / (1.0 + shrunk)", "(1.0 - shrunk) / (1.01 + shrunk)", CAPPED),
    in_("primitives", "y = tl.where(x < 0.0, -y, y)", "pass", CAPPED),
    in_("primitives", "2.0 / (1.0 + tl.exp2", "2.0 / (1.01 + tl.exp2", CAPPED_16_BITS),
    in_("primitives", "p = p * (1.0 - x * x)", "p = p * (1.0 - x)", CAPPED),
    in_("backward", "ds = slope * (dp - delta[None, :])", "ds = slope * dp", CAUSAL),
    in_("backward", "ds = slope * (dp - delta[:, None])", "ds = slope * dp", CAUSAL),
    in_("forward", "shift = tl.where(new_top == float(\"-inf\"), 0.0, shift)", "pass", SEEN_LATE),
    in_("forward", "total = total * decay + tl.sum(p, 1)", "total = total + tl.sum(p, 1)", CAUSAL),
    in_("forward", "acc * decay[:, None], input_precision", "acc, input_precision", CAUSAL),
    in_("forward", "new_top = tl.maximum(top, tl.max(x, 1))", "new_top = tl.max(x, 1)", SEEN_LATE),
    in_("forward", "x = tl.where(inside(lo, hi, start, COLS, BOTH, True), x, float(\"-inf\"))", "pass", CAUSAL),
    in_("forward", "stride_vt, stride_vd, COLS, WIDTH, D, PARTIAL", "stride_kt, stride_kd, COLS, WIDTH, D, PARTIAL", STRIDED),
    in_("forward", "divisor = tl.where(unseen, 1.0, total)", "divisor = total", EMPTY),
    in_("forward", "total = total * decay + tl.exp2(sink * LOG2E - shift)", "total = total * decay", SINK),
    in_("forward", "tl.load(sink + h)", "tl.load(sink)", SINK),
    in_("forward", "tl.store(lse + bh.to(tl.int64) * T_q + row", "tl.store(lse + b.to(tl.int64) * T_q + row", SINK),
    in_("forward", "k_base = k + b.to(tl.int64) * stride_kb + (h // GROUP)", "k_base = k + b.to(tl.int64) * stride_kb + (h % 2)", GROUPED),
    in_("forward", "tl.log2(divisor)) * LN2", "tl.log2(divisor))", CAUSAL),
    in_("backward", "p = tl.where(inside(lo, hi, start, COLS, True, BOTH), p, 0.0)", "pass", CAUSAL),
    in_("backward", "p = tl.where(inside(lo, hi, start, COLS, BOTH, True), p, 0.0)", "pass", CAUSAL),
    in_("backward", "dk_tile * scale", "dk_tile", CAUSAL),
    in_("backward", "dq_tile * scale", "dq_tile", CAUSAL),
    in_("backward", "kv_head * GROUP + GROUP)", "kv_head * GROUP + 1)", GROUPED),
    in_("backward", "delta_base = delta + tl.cast(b * H + h, tl.int64) * T_q", "delta_base = delta + tl.cast(b * H, tl.int64) * T_q", GROUPED),
    in_("backward", "dv_tile, begin, T_k, stride_dvt, stride_dvd", "dv_tile, begin, T_k, stride_dkt, stride_dkd", STRIDED),
    in_("backward", "tl.store(delta + at, sums, mask=row < T_q)", "tl.store(delta + at, sums)", CAUSAL),
    in_("backward", "(h // GROUP).to(tl.int64) * stride_vh", "(h % 2).to(tl.int64) * stride_vh", GROUPED),
]  # fmt: skip


def mutated(
    mutant: Mutant | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ModuleType, ModuleType]:
    """The forward and backward modules of a copy of the kernels under a name of its own."""
    package = f"mutant_{next(NUMBERS)}"
    (folder / package).mkdir()
    for module in MODULES:
        text = (SOURCE / f"{module}.py").read_text()
        if mutant is not None and module == mutant.module:
            text = with_change(text, mutant)
        for name in MODULES:
            text = text.replace(f"from kernels.attention.{name} import", f"from {package}.{name} import")
        (folder / package / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module(f"{package}.forward"), importlib.import_module(f"{package}.backward")


def with_change(text: str, mutant: Mutant) -> str:
    parts = text.split(mutant.line)
    assert len(parts) > mutant.which + 1, f"the kernels no longer hold {mutant.line!r}: renew this mutant"
    head, tail = parts[: mutant.which + 1], parts[mutant.which + 1 :]
    return mutant.line.join(head) + mutant.instead + mutant.line.join(tail)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}: {mutant.instead}")
def test_the_case_kills_the_mutant(mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, backward = mutated(mutant, tmp_path, monkeypatch)
    try:
        survived = failures(mutant.case, forward, backward) == []
    except Exception as error:
        survived = "outside every tensor" not in str(error)
        assert not survived, error
    assert not survived


@pytest.mark.parametrize("case", sorted({mutant.case for mutant in MUTANTS}, key=str), ids=str)
def test_the_kernels_themselves_survive(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failures(case, *mutated(None, tmp_path, monkeypatch)) == []
