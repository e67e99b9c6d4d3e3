"""The loss timed on the GPU that is here: ours, by kernel and by PyTorch's operations, beside PyTorch's own
and, where installed, Liger's.

Whoever fails the comparison of the self-check on a case has no speed there, whoever it is; whose gradients
differ between two runs is told. Nothing of this has run on a GPU yet; what does not need one is tested with a
clock and contestants put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.attention.api import Implementation
from kernels.bench import Clock, first_line, tflops
from kernels.linear_cross_entropy.api import IGNORED, linear_cross_entropy
from kernels.linear_cross_entropy.selfcheck import LossOf, Subject, by_kernel, compare, eager


@dataclass(frozen=True, kw_only=True)
class Case:
    """The head of a model and its loss, in bfloat16."""

    tokens: int
    width: int
    vocab_size: int

    @property
    def product_flops(self) -> float:
        """Of the logits; with the gradients two more such products."""
        return 2.0 * self.tokens * self.width * self.vocab_size


CASES = tuple(
    Case(tokens=16384, width=width, vocab_size=vocab_size)
    for width in (128, 256, 768)
    for vocab_size in (4096, 50257)
)


@dataclass(frozen=True)
class Timing:
    """One contestant on one case. `refused` says why there is no speed; then the others are None.
    `unsteady`: what differs between two runs. `validating` is the loss alone, `training` loss and gradients.
    """

    case: Case
    name: str
    refused: str = ""
    unsteady: str = ""
    validating_ms: float | None = None
    training_ms: float | None = None
    validating_tflops: float | None = None
    training_tflops: float | None = None


def contestants() -> dict[str, LossOf]:
    found: dict[str, LossOf] = {
        "ours": by_kernel,
        "ours, PyTorch's operations": chunks,
        "whole logits": eager,
        "whole logits, compiled": torch.compile(eager, dynamic=False),
        "linear_cross_entropy of PyTorch": torch_chunks,
    }
    if find_spec("liger_kernel") is not None:
        found["Liger"] = liger
    return found


def chunks(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    by = Implementation.reference
    return linear_cross_entropy(hidden, weight, targets, z_loss=z_loss, implementation=by)


def torch_chunks(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    """Its chunked path; it has no z-loss, and the timed cases have none."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, targets, ignore_index=IGNORED, options=options)


def liger(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    """The gradient of the weight summed in float32, as ours."""
    from liger_kernel.transformers.functional import (  # type: ignore[import-not-found]
        liger_fused_linear_cross_entropy,
    )

    found = liger_fused_linear_cross_entropy(
        hidden, weight, targets, ignore_index=IGNORED, lse_square_scale=z_loss, accum_dtype=torch.float32
    )
    assert isinstance(found, Tensor)
    return found


def timed(case: Case, name: str, loss_of: LossOf, clock: Clock, device: str = "cuda") -> Timing:
    """Check, then time. The check has the width and vocabulary of the case, and few tokens."""
    torch.compiler.reset()  # each case has its own compilations: past a few, PyTorch would go on without
    subject = Subject(vocab_size=case.vocab_size, width=case.width, dtype="bfloat16", device=device)
    try:
        found = compare(subject, loss_of, z_loss=0.0)
        if found.wrong:
            return Timing(case, name, refused=f"wrong: {found.wrong}")
        validating, training = _milliseconds(case, loss_of, clock, device)
    except Exception as error:  # no such kernel, no memory: each library says it by its own type
        return Timing(case, name, refused=first_line(error))
    flops = case.product_flops
    speeds = tflops(flops, validating), tflops(3 * flops, training)
    return Timing(case, name, "", found.unsteady, validating, training, *speeds)


def _milliseconds(case: Case, loss_of: LossOf, clock: Clock, device: str) -> tuple[float, float]:
    random = partial(torch.randn, device=device, dtype=torch.bfloat16)
    hidden = random(case.tokens, case.width).requires_grad_()
    weight = (random(case.vocab_size, case.width) * case.width**-0.5).requires_grad_()
    targets = torch.randint(case.vocab_size, (case.tokens,), device=device)

    def validate() -> Tensor:
        with torch.no_grad():
            return loss_of(hidden, weight, targets, 0.0)

    def train() -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss_of(hidden, weight, targets, 0.0), (hidden, weight))

    return clock(validate), clock(train)


def race(by: Mapping[str, LossOf], cases: tuple[Case, ...], clock: Clock, device: str) -> list[Timing]:
    return [timed(case, name, loss_of, clock, device) for case in cases for name, loss_of in by.items()]
