"""Checking the loss kernel: cases with awkward strides and blocks, each within twice eager's error of
float64. They run in the interpreter on every push and, unchanged, on a GPU where there is one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from kernels.linear_cross_entropy import kernel as shipped
from kernels.linear_cross_entropy.reference import reference_linear_cross_entropy
from kernels.linear_cross_entropy.sweep import sweep
from kernels.testing import Shortfall, draws_for, largest_error

IGNORED = -100
NAMES = ("loss", "dhidden", "dweight")


@dataclass(frozen=True, kw_only=True)
class Case:
    """N tokens, of which every `ignored_every`th is ignored, `tokens` to a block; rows in parts of
    `columns`. `spread` is the size of the logits."""

    N: int = 7
    V: int = 70
    W: int = 8
    dtype: torch.dtype = torch.float32
    z_loss: float = 0.0
    ignored_every: int | None = None
    tokens: int = 3
    columns: int = 32
    spread: float = 3.0
    strided: bool = False
    seed: int = 0


CASES = (
    Case(strided=True, z_loss=0.2, ignored_every=3),
    Case(N=2, columns=64, ignored_every=1, z_loss=0.1),
    Case(N=3, V=100, spread=3e4),
    Case(N=5, V=2, dtype=torch.bfloat16, ignored_every=4),
    Case(N=6, V=97, W=16, dtype=torch.bfloat16, z_loss=0.1, tokens=6),
    Case(N=5, V=64, dtype=torch.float16, tokens=2, strided=True),
    Case(N=1, V=4099, W=4, columns=4096),
)


@dataclass(frozen=True)
class Inputs:
    hidden: Tensor
    weight: Tensor
    targets: Tensor


def make_inputs(case: Case, device: str = "cpu") -> Inputs:
    """Strided: hidden is cut from a wider tensor whose other numbers are NaN, the weight is transposed and
    the targets are every second of a row whose others are no targets."""
    random = torch.Generator().manual_seed(case.seed)
    hidden = torch.randn(case.N, case.W, generator=random).to(device, case.dtype)
    scale = case.spread * case.W**-0.5
    weight = (scale * torch.randn(case.V, case.W, generator=random)).to(device, case.dtype)
    targets = torch.randint(case.V, (case.N,), generator=random).to(device)
    targets[0], targets[-1] = 0, case.V - 1
    if case.ignored_every:
        targets[:: case.ignored_every] = IGNORED
    if case.strided:
        wide = hidden.new_full((case.N, case.W + 3), torch.nan)
        wide[:, 1:-2] = hidden
        hidden, weight = wide[:, 1:-2], weight.t().contiguous().t()
        targets = torch.stack((targets, torch.full_like(targets, case.V + 9)), 1)[:, 0]
    return Inputs(hidden, weight, targets)


def by_kernel(case: Case, given: Inputs, module: ModuleType = shipped) -> tuple[Tensor, ...]:
    """The mean loss and its gradients, from the sweep with a module's kernel."""

    def block(*arguments: Tensor | float | bool) -> None:
        module.launch_block(*arguments, columns=case.columns)

    total, dhidden, dweight = sweep(
        given.hidden, given.weight, given.targets, case.z_loss, IGNORED, True, block, case.tokens
    )
    kept = (given.targets != IGNORED).sum().clamp(min=1)
    return total / kept, dhidden.float() / kept, dweight / kept


def by_reference(case: Case, given: Inputs, dtype: torch.dtype) -> tuple[Tensor, ...]:
    hidden, weight = (x.detach().to(dtype).requires_grad_() for x in (given.hidden, given.weight))
    loss = reference_linear_cross_entropy(hidden, weight, given.targets, case.z_loss, IGNORED)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    return tuple(x.detach().nan_to_num(0.0) for x in (loss, *gradients))  # nothing kept: no loss


@lru_cache(256)
def eager_errors(case: Case, device: str) -> tuple[float, ...]:
    found = [0.0] * len(NAMES)
    for draw in range(draws_for(case.W * min(case.N, case.V))):
        drawn = make_inputs(replace(case, seed=case.seed + 1000 * draw), device)
        rough, exact = (by_reference(case, drawn, dtype) for dtype in (case.dtype, torch.float64))
        found = [max(e, largest_error(a, b)) for e, a, b in zip(found, rough, exact, strict=True)]
    return tuple(found)


def failures(case: Case, module: ModuleType = shipped, device: str = "cpu") -> list[Shortfall]:
    """What is further from float64 than its budget: twice the error of PyTorch's eager operations in the same
    precision, the largest of a few draws; at least half a unit in the last place of the largest number, and
    float32's noise in logits of this size."""
    eager = eager_errors(case, device)
    given = make_inputs(case, device)
    truth, ours = by_reference(case, given, torch.float64), by_kernel(case, given, module)
    rounding, noise = torch.finfo(case.dtype).eps / 2, 8 * torch.finfo(torch.float32).eps
    said = []
    for name, e, found, true in zip(NAMES, eager, ours, truth, strict=True):
        budget = max(2 * e, (rounding + noise) * float(true.abs().max()))
        said.append(Shortfall(name, largest_error(found, true), budget))
    return [each for each in said if not each.error <= each.budget]
