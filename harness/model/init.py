"""How weights start: a function of the shape, the settings and one seed."""

from __future__ import annotations

import torch
from torch import nn

from harness.model.attention import Attend
from harness.model.settings import InitConfig
from harness.model.transformer import Transformer
from harness.shape import ModelShape

INTO_RESIDUAL = ("attention.out", "mlp.down")


def build_model(shape: ModelShape, attend: Attend, init: InitConfig, seed: int) -> Transformer:
    """A freshly initialised model. Equal arguments give equal weights on any machine with this torch."""
    model = Transformer(shape, attend)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and not (name == "head" and shape.tied_embeddings):
                module.weight.normal_(
                    0.0, linear_std(name, module, shape.depth, init.gain), generator=generator
                )
            elif isinstance(module, nn.Embedding):
                std = init.embedding_gain / shape.width**0.5
                module.weight.normal_(0.0, std, generator=generator)
    return model


def linear_std(name: str, module: nn.Linear, depth: int, gain: float) -> float:
    std = gain / module.in_features**0.5
    return std / (2 * depth) ** 0.5 if name.endswith(INTO_RESIDUAL) else std
