"""How a model changes with its width and depth, as numbers. No torch.

The width multiplier (m_d in the papers) is the width over the base width, the depth multiplier (m_L) the
layers that a token passes over the base depth. CompleteP (Dey et al. 2025, arXiv:2505.01618, table 1)
follows both, muP (Yang et al. 2022, arXiv:2203.03466) has a depth multiplier of 1, `standard` has both at
1; the formulas are the same for all three. At the base shape they are one model, but for the scale of
attention: 1 / sqrt(head_dim) in `standard`, 1 / head_dim in the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from harness.model.settings import InitConfig, ParametrizationConfig, ParametrizationKind
from harness.shape import ModelShape

INTO_RESIDUAL = ("attention.out.weight", "recurrent.out.weight", "mlp.down.weight")

CHANNEL_WISE = tuple(f"recurrent.{name}" for name in ("taps", "log_decay", "step_bias", "skip"))


class WeightKind(Enum):
    """What the rules tell apart. A tied embedding is an `embedding`; the scale of the logits is its own. A
    `channel` weight acts on each channel or head by itself: a decay, a bias, the taps of a convolution."""

    embedding = "embedding"
    hidden = "hidden"
    block_norm = "block norm"
    channel = "channel"
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
    one, and for channel weights, which start where their layer says; `lr` is the peak."""

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
    """The rules for one shape. `alpha` is the exponent of the depth, `attention` the scale of the scores."""

    shape: ModelShape
    width_multiplier: float
    depth_multiplier: float
    alpha: float
    attention: float

    @property
    def residual(self) -> float:
        """A block's branch F enters as x + residual * F(x)."""
        return self.depth_multiplier**-self.alpha

    @property
    def readout(self) -> float:
        """Scale of the logits."""
        return 1 / self.width_multiplier

    def init_std(self, init: InitConfig, name: str, fan_in: int) -> float:
        """Standard deviation at the start of a matrix with `fan_in` inputs. A hidden one's falls with the
        width by its fan-in; the embedding's and the readout's stay those of the base."""
        base_width = self.shape.width / self.width_multiplier
        base_depth = self.shape.unrolled_depth / self.depth_multiplier
        match weight_kind(name, is_matrix=True):
            case WeightKind.embedding:
                return init.embedding_gain / base_width**0.5
            case WeightKind.readout:
                return init.gain / base_width**0.5
        std = init.gain / fan_in**0.5
        return std / (2 * base_depth) ** 0.5 if name.endswith(INTO_RESIDUAL) else std

    def multipliers(self, kind: WeightKind) -> Multipliers:
        """For Adam, whose steps keep their size as gradients shrink."""
        width, depth = self.width_multiplier, self.depth_multiplier ** (self.alpha - 1)
        eps = self.residual / width
        match kind:
            case WeightKind.hidden:
                return Multipliers(lr=depth / width, weight_decay=width, eps=eps)
            case WeightKind.block_norm | WeightKind.channel:
                return Multipliers(lr=depth, weight_decay=1.0, eps=eps)
            case WeightKind.embedding | WeightKind.readout | WeightKind.final_norm:
                return Multipliers(lr=1.0, weight_decay=1.0, eps=eps)

    def orthogonal_multipliers(self) -> Multipliers:
        """For hidden matrices under Muon at Adam's step size (Liu et al. 2025, arXiv:2502.16982). The
        spectral norm of such a step grows with the square root of the width, where Adam's grows with the
        width; it must not grow at all (Yang, Simon and Bernstein 2023, arXiv:2310.17813)."""
        width, depth = self.width_multiplier**0.5, self.depth_multiplier ** (self.alpha - 1)
        return Multipliers(lr=depth / width, weight_decay=width, eps=1.0)


def parametrize(config: ParametrizationConfig, shape: ModelShape) -> Parametrization:
    width, depth = shape.width / config.base_width, shape.unrolled_depth / config.base_depth
    match config.kind:
        case ParametrizationKind.standard:
            return Parametrization(shape, 1.0, 1.0, 1.0, 1 / math.sqrt(shape.head_dim))
        case ParametrizationKind.mup:
            return Parametrization(shape, width, 1.0, 1.0, 1 / shape.head_dim)
        case ParametrizationKind.complete_p:
            return Parametrization(shape, width, depth, config.depth_exponent, 1 / shape.head_dim)


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
    if name.endswith(CHANNEL_WISE):
        return WeightKind.channel
    return WeightKind.hidden if is_matrix else WeightKind.block_norm
