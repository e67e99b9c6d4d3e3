"""What a user may set about the model beyond its shape. Torch-free, so that planning needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class AttentionKind(Enum):
    auto = "auto"
    reference = "reference"
    sdpa = "sdpa"
    triton = "triton"


@dataclass(kw_only=True)
class AttentionConfig:
    kind: AttentionKind = AttentionKind.auto


@dataclass(kw_only=True)
class InitConfig:
    """Matrices start normal with standard deviation gain / sqrt(fan_in); projections into the residual
    stream are smaller by sqrt(2 * depth), as in GPT-2 (Radford et al. 2019, 2.3). The embedding has its
    own standard deviation, which with a tied head also sets the size of the first logits."""

    gain: float = 1.0
    embedding_std: float = 0.02

    def __post_init__(self) -> None:
        if self.gain <= 0 or self.embedding_std <= 0:
            raise ValueError("init.gain and init.embedding_std must be positive")
