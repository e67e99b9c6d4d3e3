"""The one door to the loss of a model: the head's product and the cross-entropy after it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from harness.model.settings import LossKind


def head_loss(kind: LossKind, hidden_BTW: Tensor, head: nn.Linear, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token, in float32 whatever the precision of the logits."""
    match kind:
        case LossKind.full:
            return F.cross_entropy(head(hidden_BTW).flatten(0, 1).float(), targets_BT.flatten())
        case LossKind.chunked:
            from kernels import Implementation, linear_cross_entropy

            return linear_cross_entropy(
                hidden_BTW, head.weight, targets_BT, implementation=Implementation.reference
            )
