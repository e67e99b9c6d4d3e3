"""Checking attention: cases, inputs with awkward strides, and an error budget against a float64 oracle.

The same cases run in the interpreter on every push and, unchanged, on a GPU where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from itertools import product
from types import ModuleType

import torch
from torch import Tensor

from kernels.attention import backward as shipped_backward
from kernels.attention import forward as shipped_forward
from kernels.attention.api import DTYPES, HEAD_DIMS
from kernels.attention.problem import Documents, Options, documents_of_ids
from kernels.attention.reference import reference_attention, visible
from kernels.attention.tuning import Tile
from kernels.selfcheck import lost_units


class Layout(Enum):
    """How a (B, H, T, D) tensor lies in memory."""

    heads_first = "heads_first"
    tokens_first = "tokens_first"
    packed = "packed"
    transposed = "transposed"
    expanded = "expanded"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call: sizes, features, layouts of q, k, v and dout, and tiles that need not be equal; None for
    those of the card."""

    B: int = 1
    H: int = 2
    K: int = 1
    T_q: int = 40
    T_k: int = 40
    D: int = 16
    dtype: torch.dtype = torch.float32
    causal: bool = True
    window: int | None = None
    softcap: float | None = None
    lengths: tuple[int, ...] | None = None
    sink: bool = False
    layouts: tuple[Layout, Layout, Layout, Layout] = (Layout.heads_first,) * 4
    tile: tuple[int, int] | None = (32, 16)
    seed: int = 0

    @property
    def options(self) -> Options:
        return Options(causal=self.causal, window=self.window, scale=1.3 * self.D**-0.5, softcap=self.softcap)

    @property
    def tiles(self) -> tuple[Tile | None, Tile | None, Tile | None]:
        """Of the forward, dK/dV and dQ."""
        if self.tile is None:
            return None, None, None
        rows, columns = self.tile
        return Tile(rows, columns, 4, 1), Tile(columns, rows, 4, 1), Tile(rows, columns, 4, 1)


@dataclass(frozen=True)
class Inputs:
    q: Tensor
    k: Tensor
    v: Tensor
    dout: Tensor
    documents: Documents | None
    sink: Tensor | None


def make_inputs(case: Case, device: str = "cpu") -> Inputs:
    random = torch.Generator().manual_seed(case.seed)
    shapes = [(case.H, case.T_q), (case.K, case.T_k), (case.K, case.T_k), (case.H, case.T_q)]
    q, k, v, dout = (
        laid_out(torch.randn(case.B, heads, tokens, case.D, generator=random).to(device, case.dtype), layout)
        for (heads, tokens), layout in zip(shapes, case.layouts, strict=True)
    )
    sink = torch.randn(case.H, generator=random).to(device) if case.sink else None
    return Inputs(q, k, v, dout, documents_of(case, device), sink)


def documents_of(case: Case, device: str = "cpu") -> Documents | None:
    """Documents of the case's lengths; in every other row of the batch in the reverse order."""
    if case.lengths is None:
        return None
    rows = [case.lengths if b % 2 == 0 else case.lengths[::-1] for b in range(case.B)]
    ids = [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows]
    return documents_of_ids(torch.stack(ids).to(device))


def laid_out(tensor: Tensor, layout: Layout) -> Tensor:
    """A view with the same numbers; memory that is not part of it holds NaN."""
    B, H, T, D = tensor.shape
    nan = float("nan")
    match layout:
        case Layout.heads_first:
            return tensor.contiguous()
        case Layout.tokens_first:
            return tensor.transpose(1, 2).contiguous().transpose(1, 2)
        case Layout.packed:
            view = tensor.new_full((B, T, 3, H, D + 8), nan)[:, :, 1, :, :D].transpose(1, 2)
        case Layout.transposed:
            view = tensor.new_full((B, H, D, T + 3), nan)[..., :T].transpose(2, 3)
        case Layout.expanded:
            return tensor[:1, :1].expand(B, H, T, D)
    return view.copy_(tensor)


NAMES = ("out", "lse", "dq", "dk", "dv")


def failures(
    case: Case,
    forward: ModuleType = shipped_forward,
    backward: ModuleType = shipped_backward,
    device: str = "cpu",
) -> list[Shortfall]:
    """Run the kernels of two modules on a case; the tensors that miss their budget."""
    given = make_inputs(case, device)
    tile, keys_tile, queries_tile = case.tiles
    out, lse = forward.launch_forward(
        given.q, given.k, given.v, case.options, given.documents, given.sink, tile
    )
    delta = backward.launch_delta(out, given.dout)
    gradients = backward.launch_backward(
        given.dout,
        given.q,
        given.k,
        given.v,
        lse,
        delta,
        case.options,
        given.documents,
        keys_tile,
        queries_tile,
    )
    truth = _by_reference(case, given, torch.float64)
    ours = (out, lse, *gradients)
    budgets = error_budgets(case, device, truth, noise_floors(case, given))
    measured = [
        Shortfall(name, largest_error(tensor, true), budget)
        for name, tensor, true, budget in zip(NAMES, ours, truth, budgets, strict=True)
    ]
    return [each for each in measured if not each.error <= each.budget]


def _by_reference(case: Case, given: Inputs, dtype: torch.dtype) -> tuple[Tensor, ...]:
    q, k, v = (tensor.detach().to(dtype).requires_grad_() for tensor in (given.q, given.k, given.v))
    out, lse = reference_attention(q, k, v, case.options, given.documents, given.sink)
    gradients = torch.autograd.grad(out, (q, k, v), given.dout.to(dtype))
    return out.detach(), lse.detach(), *gradients


@dataclass(frozen=True)
class Shortfall:
    """A tensor further from the float64 truth than its budget allows."""

    name: str
    error: float
    budget: float


DRAWS, MANY_DRAWS, NUMBERS = 6, 40, 1 << 15
"""Inputs that are drawn: at least, at most, and numbers of the smallest tensor that should be drawn."""


def error_budgets(
    case: Case, device: str, truth: tuple[Tensor, ...], floors: tuple[float, ...]
) -> list[float]:
    """The largest error of each tensor: twice that of PyTorch's eager operations in the same precision, not
    less than half a unit in the last place of the largest number, nor than the noise of float32."""
    units = [torch.finfo(case.dtype).eps * float(_finite(true).abs().max()) for true in truth]
    eager, lost = eager_errors(case, device), lost_on_tensor_cores(case, device)
    return [
        max(2 * e, unit / 2, floor + n * unit)
        for e, unit, floor, n in zip(eager, units, floors, lost, strict=True)
    ]


def lost_on_tensor_cores(case: Case, device: str) -> tuple[float, ...]:
    """Units in the last place of each tensor; none where it is of 16 bits, far above those of a sum."""
    if case.dtype != torch.float32 or not device.startswith("cuda"):
        return (0.0,) * len(NAMES)
    rows, columns = case.T_k, case.T_q * case.H // case.K
    return tuple(map(lost_units, (rows, case.D, rows, columns, columns)))


@lru_cache(256)
def eager_errors(case: Case, device: str) -> tuple[float, ...]:
    """The largest over several draws of the inputs: on few numbers an error can be small by luck, and the
    errors of a backward have long tails."""
    fewest = case.B * case.D * min(case.H * case.T_q, case.K * case.T_k)
    found = [0.0] * len(NAMES)
    for draw in range(draws_for(fewest)):
        drawn = make_inputs(replace(case, seed=case.seed + draw * 1000), device)
        rough, exact = (_by_reference(case, drawn, dtype) for dtype in (case.dtype, torch.float64))
        found = [max(e, largest_error(a, b)) for e, a, b in zip(found, rough, exact, strict=True)]
    return tuple(found)


def draws_for(fewest: int) -> int:
    """Of inputs whose smallest tensor has so many numbers."""
    return max(DRAWS, min(MANY_DRAWS, NUMBERS // fewest))


def noise_floors(case: Case, given: Inputs) -> tuple[float, ...]:
    """Float32 epsilon times the sum of the absolute terms of each tensor: the classical bound of a sum.

    Where terms cancel (one key: dS = p (dp - delta) = 0) eager may be exact while recomputed terms are not.
    The relative error of a weight exp(s - lse) is that of the exponent: of the terms |q| |k| of s, of lse,
    and with a softcap of its tanh, whose accuracy `kernels.attention.primitives` states.
    """
    group = case.H // case.K
    q, dout = given.q.double(), given.dout.double()
    k, v = (tensor.double().repeat_interleave(group, dim=1) for tensor in (given.k, given.v))
    out, lse = reference_attention(q, k, v, case.options, given.documents, given.sink)
    lse = _finite(lse).unsqueeze(-1)
    s = (q @ k.transpose(-1, -2)) * case.options.scale
    seen = visible(case.T_q, case.T_k, case.options, given.documents, q.device)
    logits, noise = s, (q.abs() @ k.abs().transpose(-1, -2)) * case.options.scale
    if case.softcap is not None:
        logits = case.softcap * torch.tanh(s / case.softcap)
        noise += 3 * s.abs() if case.dtype == torch.float32 else 2 * case.softcap
    p = torch.exp(logits - lse).masked_fill(~seen, 0) * (1 + noise + lse.abs())
    ds = p * (dout.abs() @ v.abs().transpose(-1, -2) + (out * dout).abs().sum(-1, keepdim=True))
    terms = (
        p @ v.abs(),
        1 + lse.abs() + (noise * seen).amax(-1, keepdim=True),
        ds @ k.abs() * case.options.scale,
        (ds.transpose(-1, -2) @ q.abs() * case.options.scale).unflatten(1, (case.K, group)).sum(2),
        (p.transpose(-1, -2) @ dout.abs()).unflatten(1, (case.K, group)).sum(2),
    )
    return tuple(torch.finfo(torch.float32).eps * float(term.max()) for term in terms)


def _finite(tensor: Tensor) -> Tensor:
    return tensor.masked_fill(tensor.isinf(), 0)


def largest_error(tensor: Tensor, truth: Tensor) -> float:
    """max |tensor - truth|; equal infinities are no error, a NaN is infinitely wrong."""
    difference = (tensor.double() - truth).abs()
    difference[tensor.double() == truth] = 0
    return float(difference.nan_to_num(torch.inf).max()) if difference.numel() else 0.0


STRIDED = (Layout.packed, Layout.transposed, Layout.tokens_first, Layout.expanded)

CASES = (
    Case(T_q=37, T_k=37, layouts=STRIDED),
    Case(T_q=50, T_k=50, tile=(16, 32), B=2, H=4, K=2, window=9, softcap=3.0, sink=True, layouts=STRIDED),
    Case(T_q=45, T_k=45, lengths=(7, 1, 20, 17), B=2, tile=(16, 16), dtype=torch.bfloat16),
    Case(T_q=20, T_k=53, D=48, causal=False, window=18, dtype=torch.float16, layouts=STRIDED[::-1]),
    Case(T_q=53, T_k=20, tile=(16, 32), sink=True),
    Case(T_q=41, T_k=41, causal=False, lengths=(30, 11), window=25, softcap=1.5, H=3),
    Case(T_q=1, T_k=33, dtype=torch.bfloat16),
    Case(T_q=1, T_k=1, softcap=50.0, dtype=torch.float16, layouts=STRIDED),
    Case(
        T_q=44, T_k=44, B=2, H=4, K=2, lengths=(11, 1, 32), window=9, softcap=3.0, sink=True, tile=(16, 32),
        dtype=torch.bfloat16, layouts=STRIDED[::-1],
    ),
)  # fmt: skip
"""Few and small, chosen so that every single-line mutant of the kernels fails one (tests/kernels)."""


def shipped_cases(tokens: int) -> list[Case]:
    """Every head dimension and type with the tiles of the card, without features and with all of them."""
    plain = Case(T_q=tokens, T_k=tokens, tile=None)
    half = tokens // 2
    featured = replace(
        plain, H=4, K=2, lengths=(half, 1, tokens - half - 1), window=half - 3, softcap=5.0, sink=True,
        layouts=STRIDED,
    )  # fmt: skip
    return [
        replace(case, D=D, dtype=dtype) for D, dtype, case in product(HEAD_DIMS, DTYPES, (plain, featured))
    ]


def grid() -> list[Case]:
    """Every feature with ragged lengths, windows around a tile, unequal tiles, strides and types."""
    plain = Case(T_q=63, T_k=63)
    masks = [
        replace(plain, causal=causal, window=window)
        for causal, window in product((True, False), (None, 1, 15, 16, 17, 200))
    ]
    packed = [
        replace(plain, lengths=(1, 15, 16, 17, 14)),
        replace(plain, lengths=(1, 15, 16, 17, 14), causal=False),
        replace(plain, lengths=(40, 23), window=20),
    ]
    shapes = [(63, 63), (17, 49), (49, 17), (1, 63), (64, 64)]
    masks = packed + [replace(mask, T_q=T_q, T_k=T_k) for mask, (T_q, T_k) in product(masks, shapes)]
    featured = [
        featured
        for mask in masks
        for featured in (
            mask,
            replace(mask, softcap=2.0),
            replace(mask, sink=True),
            replace(mask, K=2, H=6, B=2),
        )
    ]
    return [_in_turn(number, case) for number, case in enumerate(featured)]


def _in_turn(number: int, case: Case) -> Case:
    """Tiles, types, head dimensions and strides by the number of the case, out of step with each other."""
    return replace(
        case,
        tile=((16, 16), (32, 16), (16, 32))[number % 3],
        dtype=(torch.float32, torch.bfloat16, torch.float16)[number // 2 % 3],
        D=(16, 32, 48, 64)[number // 3 % 4],
        layouts=STRIDED if number % 2 else case.layouts,
    )
