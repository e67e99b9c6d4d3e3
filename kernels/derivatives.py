"""The derivatives that the kernels do not have."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def refuse_other_derivatives(kernel: str, *tensors: Tensor) -> None:
    """Raises TypeError for forward mode and torch.func. Else a tangent would be lost without a word: PyTorch
    takes that of an operator for zero."""
    if torch.compiler.is_compiling():
        return
    for tensor in tensors:
        if (
            torch._C._functorch.is_gradtrackingtensor(tensor)
            or forward_ad.unpack_dual(tensor).tangent is not None
        ):
            raise TypeError(
                f"{kernel} has no forward-mode and no torch.func derivative; use backward() or "
                "torch.autograd.grad"
            )
