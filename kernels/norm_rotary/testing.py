"""Checking norm and rotation: few small cases, each within one rounding of float64. They run in the
interpreter on every push and, unchanged, on a GPU where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from kernels.norm_rotary import kernel as shipped
from kernels.norm_rotary.reference import reference_norm_rotary
from kernels.testing import largest_error

EPS = 0.01


@dataclass(frozen=True)
class Case:
    B: int
    T: int
    H: int
    D: int
    dtype: torch.dtype = torch.float32
    strided: bool = True


CASES = (
    Case(2, 19, 3, 16),
    Case(1, 13, 2, 48, torch.bfloat16),
    Case(2, 9, 1, 128, torch.float16, strided=False),
    Case(1, 1, 1, 2),
)


@dataclass(frozen=True)
class Inputs:
    x: Tensor
    dy: Tensor
    gain: Tensor
    cos: Tensor
    sin: Tensor


def make_inputs(case: Case, device: str = "cpu") -> Inputs:
    """x cut from a wider projection whose other numbers are NaN, dy with heads before tokens."""
    random = torch.Generator().manual_seed(1)
    shape = (case.B, case.T, case.H, case.D)
    x, dy = (torch.randn(shape, generator=random).to(device, case.dtype) for _ in range(2))
    if case.strided:
        wide = torch.full((case.B, case.T, case.H + 2, case.D), float("nan"), dtype=case.dtype, device=device)
        wide[:, :, 1:-1] = x
        x, dy = wide[:, :, 1:-1], dy.transpose(1, 2).contiguous().transpose(1, 2)
    angle = torch.randn(case.T, case.D // 2, generator=random).to(device)
    gain = (1 + torch.randn(case.D, generator=random) / 2).to(device)
    return Inputs(x, dy, gain, angle.cos(), angle.sin())


def wrong(case: Case, module: ModuleType = shipped, device: str = "cpu") -> list[str]:
    """What is further from float64 than one rounding of the result and the noise of float32."""
    given = make_inputs(case, device)
    arguments = (given.x, given.gain, given.cos, given.sin, EPS)
    ours = module.launch_forward(*arguments), *module.launch_backward(given.dy, *arguments)
    x, gain = given.x.double().requires_grad_(), given.gain.double().requires_grad_()
    y = reference_norm_rotary(x, gain, given.cos.double(), given.sin.double(), EPS)
    truth = y, *torch.autograd.grad(y, (x, gain), given.dy.double())
    said = []
    for name, found, true in zip(("y", "dx", "dgain"), ours, truth, strict=True):
        rounding = torch.finfo(found.dtype).eps / 2 if found.dtype != torch.float32 else 0.0
        budget = (rounding + 16 * torch.finfo(torch.float32).eps) * float(true.detach().abs().max())
        if not largest_error(found, true.detach()) <= budget:
            said.append(name)
    return said
