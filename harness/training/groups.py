"""What the parametrization and the optimizer make of every weight, read from the optimizer's own groups."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from harness.model.attention import sdpa
from harness.model.parametrization import Parametrization, WeightRule, parametrize
from harness.model.settings import InitConfig
from harness.model.transformer import Transformer
from harness.training.cell import Cell
from harness.training.optim import DECAYED, kind_of, multipliers_of, parameter_groups


def weight_rules(cell: Cell) -> list[WeightRule]:
    """One rule for each weight of the first block and for each outside the blocks; the other blocks follow
    the first. Allocates nothing."""
    config, rules = cell.config, parametrize(cell.config.parametrization, cell.shape)
    with torch.device("meta"):
        model = Transformer(cell.shape, sdpa, rules)
    names = {weight: name for name, weight in model.named_parameters()}
    found = [
        WeightRule(
            name=re.sub(r"^blocks\.0\.", "blocks.*.", names[weight]),
            kind=kind_of(names[weight], weight),
            shape=tuple(weight.shape),
            init_std=initial_std(config.init, rules, names[weight], weight),
            multipliers=multipliers_of(config.optim, rules, kind_of(names[weight], weight)),
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
        )
        for group in parameter_groups(model, config.optim, cell.peak_lr)
        for weight in group["params"]
    ]
    return [rule for rule in found if not re.match(r"blocks\.\d", rule.name)]


def initial_std(init: InitConfig, rules: Parametrization, name: str, weight: Tensor) -> float | None:
    drawn = kind_of(name, weight) in DECAYED
    return rules.init_std(init, name, weight.shape[1]) if drawn else None
