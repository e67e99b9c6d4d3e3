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
    stream are smaller by sqrt(2 * depth), as in GPT-2 (Radford et al. 2019, 2.3). The embedding starts at
    embedding_gain / sqrt(width): tied to the head, that makes the first logits of size embedding_gain."""

    gain: float = 1.0
    embedding_gain: float = 1.0

    def __post_init__(self) -> None:
        if self.gain <= 0 or self.embedding_gain <= 0:
            raise ValueError("init.gain and init.embedding_gain must be positive")
