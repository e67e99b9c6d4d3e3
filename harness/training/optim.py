"""Optimizers and their parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from harness.model.parametrization import Multipliers, Parametrization, WeightKind, weight_kind
from harness.model.transformer import Transformer
from harness.training.settings import OptimConfig, OptimizerKind

DECAYED = (WeightKind.hidden, WeightKind.embedding, WeightKind.readout)
ORTHOGONALISED = "momentum"
"""The setting that only Muon's groups have."""
MUON_EPS = 1e-7
"""Below this norm a momentum is not scaled up; no parametrization changes it."""


def build_optimizer(model: Transformer, config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    """`lr` is the rate before the parametrization's multipliers."""
    groups = parameter_groups(model, config, lr)
    match config.kind:
        case OptimizerKind.adamw:
            return adamw(groups, config)
        case OptimizerKind.muon:
            muon = torch.optim.Muon(
                [group for group in groups if ORTHOGONALISED in group], adjust_lr_fn="match_rms_adamw"
            )
            return Together([muon, adamw([g for g in groups if ORTHOGONALISED not in g], config)])


def adamw(groups: list[dict], config: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), fused=True)


class Together(torch.optim.Optimizer):
    """Several optimizers as one; `param_groups` are theirs, one after another."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "gradients are computed before the step"
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def parameter_groups(model: Transformer, config: OptimConfig, lr: float) -> list[dict]:
    """Decoupled decay (Loshchilov and Hutter 2019, arXiv:1711.05101) on matrices, none on gains; and one
    group for each set of multipliers, so two in all for AdamW under the standard parametrization."""
    members: dict[tuple[bool, bool, Multipliers], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        kind = kind_of(name, weight)
        key = (kind in DECAYED, is_orthogonalised(config, kind), multipliers_of(config, model.rules, kind))
        members.setdefault(key, []).append(weight)
    return [
        {
            "params": weights,
            "lr": lr * by.lr,
            "lr_multiplier": by.lr,
            "weight_decay": config.weight_decay * by.weight_decay if decays else 0.0,
            **(
                {ORTHOGONALISED: config.momentum, "eps": MUON_EPS}
                if orthogonal
                else {"eps": config.eps * by.eps}
            ),
        }
        for (decays, orthogonal, by), weights in members.items()
    ]


def is_orthogonalised(config: OptimConfig, kind: WeightKind) -> bool:
    return config.kind is OptimizerKind.muon and kind is WeightKind.hidden


def multipliers_of(config: OptimConfig, rules: Parametrization, kind: WeightKind) -> Multipliers:
    return rules.orthogonal_multipliers() if is_orthogonalised(config, kind) else rules.multipliers(kind)


def kind_of(name: str, weight: Tensor) -> WeightKind:
    return weight_kind(name, is_matrix=weight.ndim >= 2)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_multiplier", 1.0)  # checkpoints from before there were any


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """The gradient norm before clipping, on the device; scales the gradients in place. Of sharded gradients
    it is the norm of the whole."""
    weights = list(parameters)
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    nn.utils.clip_grads_with_norm_(weights, limit, norm)
    return norm
