"""Whether the loss kernel is right on the card that is here: it is compared with PyTorch's operations on the
whole logits (`kernels.verdicts` says when). The comparison has not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.attention.api import Implementation
from kernels.linear_cross_entropy.api import IGNORED, linear_cross_entropy
from kernels.linear_cross_entropy.reference import reference_linear_cross_entropy
from kernels.linear_cross_entropy.sweep import Block, sweep
from kernels.selfcheck import Finding, largest_error, unsteady

LossOf = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""hidden (N, W), weight (V, W), targets (N,), z_loss -> the mean loss."""
TOKENS, BLOCK_TOKENS, Z_LOSS = 150, 64, 0.01


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is to be proved: the loss of a model of this width and vocabulary on `device`."""

    vocab_size: int
    width: int
    dtype: str
    device: str

    def shortfall(self) -> str | None:
        from kernels.linear_cross_entropy.kernel import launch_block

        return shortfall(self, by_kernel, launch_block)


def by_kernel(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    return linear_cross_entropy(hidden, weight, targets, z_loss=z_loss, implementation=Implementation.triton)


def eager(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    return reference_linear_cross_entropy(hidden, weight, targets, z_loss, IGNORED)


def shortfall(subject: Subject, loss_of: LossOf, block: Block) -> str | None:
    """The first of loss and gradients that is further from float64 than twice the error of PyTorch in the
    same precision, or that differs between two runs; and of the same in several blocks of tokens."""
    for z_loss in (Z_LOSS, 0.0):
        found = compare(subject, loss_of, z_loss)
        if said := found.wrong or found.unsteady:
            return f"{said}, z_loss={z_loss}"
    given = _inputs(subject)
    kept = (given[2] != IGNORED).sum()

    def in_blocks() -> tuple[Tensor, ...]:
        found = sweep(*given, 0.0, IGNORED, True, block, BLOCK_TOKENS)
        return tuple(x.float() / kept for x in found)

    found = _finding(*_by_eager(given), in_blocks(), in_blocks())
    if said := found.wrong or found.unsteady:
        return f"{said}, in blocks of {BLOCK_TOKENS} tokens"
    return None


def compare(subject: Subject, loss_of: LossOf, z_loss: float) -> Finding:
    """Of loss and gradients on all tokens at once."""
    given = _inputs(subject)
    once, again = (_run(loss_of, given, given[0].dtype, z_loss) for _ in "ab")
    return _finding(*_by_eager(given, z_loss), once, again)


def _inputs(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randn(rows, subject.width, generator=random).to(subject.device, getattr(torch, subject.dtype))
        for rows in (TOKENS, subject.vocab_size)
    )
    weight *= 4 * subject.width**-0.5
    targets = torch.randint(subject.vocab_size, (TOKENS,), generator=random)
    targets[::7] = IGNORED
    return hidden, weight, targets.to(subject.device)


def _run(
    by: LossOf, given: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype, z_loss: float
) -> tuple[Tensor, ...]:
    inputs = a, b = tuple(x.detach().to(dtype).requires_grad_() for x in given[:2])
    loss = by(a, b, given[2], z_loss)
    return loss.detach(), *torch.autograd.grad(loss, inputs)


def _by_eager(
    given: tuple[Tensor, Tensor, Tensor], z_loss: float = 0.0
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """In float64 and in the precision of the inputs."""
    return _run(eager, given, torch.float64, z_loss), _run(eager, given, given[0].dtype, z_loss)


def _finding(
    truth: tuple[Tensor, ...], rough: tuple[Tensor, ...], once: tuple[Tensor, ...], again: tuple[Tensor, ...]
) -> Finding:
    names, wrong = ("loss", "dhidden", "dweight"), ""
    for name, true, theirs, found in zip(names, truth, rough, once, strict=True):
        unit = (32 if found.dtype == torch.float32 else 1) * torch.finfo(found.dtype).eps
        budget = max(2 * largest_error(theirs, true), unit * float(true.abs().max()))
        error = largest_error(found, true)
        if not (wrong or error <= budget):
            wrong = f"{name} is off by {error:.2g}, more than {budget:.2g}"
    return Finding(wrong, unsteady(names, once, again))
