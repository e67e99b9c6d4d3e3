"""How weights start: a function of the shape, the settings and one seed."""

from __future__ import annotations

import torch
from torch import nn

from harness.model.attention import Attend
from harness.model.loss import LossOf, full
from harness.model.parametrization import parametrize
from harness.model.settings import InitConfig, ParametrizationConfig
from harness.model.transformer import Transformer
from harness.shape import ModelShape


def build_model(
    shape: ModelShape,
    attend: Attend,
    init: InitConfig,
    parametrization: ParametrizationConfig,
    seed: int,
    loss: LossOf = full,
) -> Transformer:
    """A freshly initialised model. Equal arguments give equal weights on any machine with this torch."""
    rules = parametrize(parametrization, shape)
    model = Transformer(shape, attend, rules, loss)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            match module:
                case nn.Linear() if not (name == "head" and shape.tied_embeddings):
                    std = rules.init_std(init, f"{name}.weight", module.in_features)
                case nn.Embedding():
                    std = rules.init_std(init, f"{name}.weight", shape.vocab_size)
                case _:
                    continue
            module.weight.normal_(0.0, std, generator=generator)
    return model
