"""Optimizers and their parameter groups."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from harness.training.settings import OptimConfig, OptimizerKind


def build_optimizer(model: nn.Module, config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    match config.kind:
        case OptimizerKind.adamw:
            return torch.optim.AdamW(
                parameter_groups(model, config.weight_decay),
                lr=lr,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                fused=True,
            )


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Decoupled decay (Loshchilov and Hutter 2019, arXiv:1711.05101) on matrices; none on gains."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": gains, "weight_decay": 0.0}]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradients(parameters: Iterable[torch.Tensor], limit: float) -> torch.Tensor:
    """The gradient norm before clipping, on the device; scales the gradients in place."""
    return nn.utils.clip_grad_norm_(parameters, limit)
