"""The one door to the loss of a model: the head's product and the cross-entropy after it.

B batch, T tokens, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import WrongInput
from harness.model.proof import proof, warn
from harness.model.settings import LossKind
from harness.shape import ModelShape

LossOf = Callable[[Tensor, nn.Linear, Tensor], Tensor]
"""hidden_BTW, head, targets_BT -> mean cross-entropy in nats per token, in float32 whatever the precision of
the logits."""


@dataclass(frozen=True)
class CrossEntropy:
    """Who computes the loss, and for the record its name and why it was chosen."""

    loss: LossOf
    name: str
    reason: str


def build_loss(kind: LossKind, shape: ModelShape, device: torch.device, dtype: torch.dtype) -> CrossEntropy:
    """The loss of a model on a device, its products in `dtype`.

    `auto` is chunked, by the Triton kernel on a GPU where it has proved itself (`kernels.verdicts`), else by
    PyTorch's operations. Raises WrongInput for `triton` where no kernel can answer.
    """
    match kind:
        case LossKind.full:
            return CrossEntropy(full, "full", "asked for")
        case LossKind.chunked:
            return CrossEntropy(chunked, "chunked", "asked for")
        case LossKind.triton:
            refuse_triton(device)
            return CrossEntropy(triton, "triton", "asked for")
        case LossKind.auto if device.type == "cuda":
            return proved(shape, device, dtype)
        case LossKind.auto:
            return CrossEntropy(chunked, "chunked", "no GPU")


def refuse_triton(device: torch.device) -> None:
    from kernels import Implementation, implementation_for

    if implementation_for(torch.empty(0, device=device)) is not Implementation.triton:
        raise WrongInput(
            f"loss=triton needs triton and a GPU, and this run is on {device.type}; use loss=auto, chunked "
            "or full (TRITON_INTERPRET=1 interprets the kernel: for tests, far slower)"
        )


def proved(shape: ModelShape, device: torch.device, dtype: torch.dtype) -> CrossEntropy:
    """The kernel if it passed its comparison with PyTorch on this card, else PyTorch and one warning."""
    from kernels.attention.api import HAS_TRITON
    from kernels.linear_cross_entropy.selfcheck import Subject

    name = str(dtype).removeprefix("torch.")
    subject = Subject(vocab_size=shape.vocab_size, width=shape.width, dtype=name, device=str(device))
    passed, reason = proof(subject, "PyTorch") if HAS_TRITON else (False, "triton is not installed")
    if passed:
        return CrossEntropy(triton, "triton", reason)
    warn(f"loss=auto: {reason}; PyTorch's operations answer")
    return CrossEntropy(chunked, "chunked", reason)


def full(hidden_BTW: Tensor, head: nn.Linear, targets_BT: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden_BTW).flatten(0, 1).float(), targets_BT.flatten())


def chunked(hidden_BTW: Tensor, head: nn.Linear, targets_BT: Tensor) -> Tensor:
    from kernels import Implementation, linear_cross_entropy

    return linear_cross_entropy(hidden_BTW, head.weight, targets_BT, implementation=Implementation.reference)


def triton(hidden_BTW: Tensor, head: nn.Linear, targets_BT: Tensor) -> Tensor:
    from kernels import Implementation, linear_cross_entropy

    return linear_cross_entropy(hidden_BTW, head.weight, targets_BT, implementation=Implementation.triton)
