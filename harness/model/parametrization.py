"""How a model changes with its width and depth, as numbers. No torch.

m_d is the width over the base width, m_L the depth over the base depth. `standard` has m_d = m_L = 1
throughout, muP (Yang et al. 2022, arXiv:2203.03466) has m_L = 1, CompleteP (Dey et al. 2025,
arXiv:2505.01618, table 1) has both; the formulas below are the same for all three. At the base shape all
three are one model, but for the scale of attention: 1 / sqrt(head_dim) in `standard`, 1 / head_dim else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from harness.model.settings import InitConfig, ParametrizationConfig, ParametrizationKind
from harness.shape import ModelShape

INTO_RESIDUAL = ("attention.out.weight", "mlp.down.weight")


class WeightKind(Enum):
    """What the rules tell apart. A tied embedding is an `embedding`; the scale of the logits is its own."""

    embedding = "embedding"
    hidden = "hidden"
    block_norm = "block norm"
    final_norm = "final norm"
    readout = "readout"


@dataclass(frozen=True)
class Multipliers:
    """What one weight's optimizer settings are multiplied by."""

    lr: float
    weight_decay: float
    eps: float


@dataclass(frozen=True)
class WeightRule:
    """One weight as it starts and as the optimizer treats it. `init_std` is None for gains, which start at
    one; `lr` is the peak."""

    name: str
    kind: WeightKind
    shape: tuple[int, ...]
    init_std: float | None
    multipliers: Multipliers
    lr: float
    weight_decay: float
    eps: float


@dataclass(frozen=True)
class Parametrization:
    """The rules for one shape. `alpha` is the exponent of the depth."""

    shape: ModelShape
    m_d: float
    m_L: float
    alpha: float
    attention: float

    @property
    def residual(self) -> float:
        """A block's branch F enters as x + residual * F(x)."""
        return self.m_L**-self.alpha

    @property
    def readout(self) -> float:
        """Scale of the logits."""
        return 1 / self.m_d

    def init_std(self, init: InitConfig, name: str, fan_in: int) -> float:
        """Standard deviation at the start of a matrix with `fan_in` inputs: sigma^2 / m_d where the fan-in
        grows with the width, constant where it does not."""
        match weight_kind(name, is_matrix=True):
            case WeightKind.embedding:
                return init.embedding_gain / (self.shape.width / self.m_d) ** 0.5
            case WeightKind.readout:
                return init.gain / (self.shape.width / self.m_d) ** 0.5
        std = init.gain / fan_in**0.5
        return std / (2 * self.shape.depth / self.m_L) ** 0.5 if name.endswith(INTO_RESIDUAL) else std

    def multipliers(self, kind: WeightKind) -> Multipliers:
        """Adam's: its steps do not shrink with the gradient, so the rate must where inputs add up."""
        depth = self.m_L ** (self.alpha - 1)
        eps = self.m_L**-self.alpha / self.m_d
        match kind:
            case WeightKind.hidden:
                return Multipliers(lr=depth / self.m_d, weight_decay=self.m_d, eps=eps)
            case WeightKind.block_norm:
                return Multipliers(lr=depth, weight_decay=1.0, eps=eps)
            case WeightKind.embedding | WeightKind.readout | WeightKind.final_norm:
                return Multipliers(lr=1.0, weight_decay=1.0, eps=eps)


def parametrize(config: ParametrizationConfig, shape: ModelShape) -> Parametrization:
    m_d, m_L = shape.width / config.base_width, shape.depth / config.base_depth
    match config.kind:
        case ParametrizationKind.standard:
            return Parametrization(shape, 1.0, 1.0, 1.0, 1 / math.sqrt(shape.head_dim))
        case ParametrizationKind.mup:
            return Parametrization(shape, m_d, 1.0, 1.0, 1 / shape.head_dim)
        case ParametrizationKind.complete_p:
            return Parametrization(shape, m_d, m_L, config.depth_exponent, 1 / shape.head_dim)


def weight_kind(name: str, *, is_matrix: bool) -> WeightKind:
    """The kind of the transformer's weight `name`; ValueError for one that no rule is known for."""
    match name:
        case "embedding.weight":
            return WeightKind.embedding
        case "head.weight":
            return WeightKind.readout
        case "norm.weight":
            return WeightKind.final_norm
    if not name.startswith("blocks."):
        raise ValueError(f"no parametrization rule is known for the weight {name}")
    return WeightKind.hidden if is_matrix else WeightKind.block_norm
