"""Optimizers and their parameter groups."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harness.model.parametrization import Multipliers, WeightKind, weight_kind
from harness.model.transformer import Transformer
from harness.training.settings import OptimConfig, OptimizerKind


def build_optimizer(model: Transformer, config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    """`lr` is the rate before the parametrization's multipliers."""
    match config.kind:
        case OptimizerKind.adamw:
            return torch.optim.AdamW(
                parameter_groups(model, config, lr),
                betas=(config.beta1, config.beta2),
                fused=True,
            )


def parameter_groups(model: Transformer, config: OptimConfig, lr: float) -> list[dict]:
    """Decoupled decay (Loshchilov and Hutter 2019, arXiv:1711.05101) on matrices, none on gains; and one
    group for each set of multipliers, so two in all under the standard parametrization."""
    members: dict[tuple[bool, Multipliers], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        multipliers = model.rules.multipliers(kind_of(name, weight))
        members.setdefault((weight.ndim >= 2, multipliers), []).append(weight)
    return [
        {
            "params": weights,
            "lr": lr * by.lr,
            "lr_multiplier": by.lr,
            "weight_decay": config.weight_decay * by.weight_decay if decays else 0.0,
            "eps": config.eps * by.eps,
        }
        for (decays, by), weights in members.items()
    ]


def kind_of(name: str, weight: Tensor) -> WeightKind:
    return weight_kind(name, is_matrix=weight.ndim >= 2)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_multiplier", 1.0)  # checkpoints from before there were any


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """The gradient norm before clipping, on the device; scales the gradients in place."""
    return nn.utils.clip_grad_norm_(parameters, limit)
