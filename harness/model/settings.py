"""What a user may set about the model beyond its shape. Torch-free, so that planning needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

CHUNK = 64
"""Positions that the linear recurrence takes at once; a matter of speed and memory alone."""


CHUNK_LOGITS_BYTES, GPU_CHUNK_LOGITS_BYTES = 16 << 20, 256 << 20
"""Logits that a chunked loss holds at once on a CPU, on a GPU (`kernels.linear_cross_entropy.sweep`)."""


class AttentionKind(Enum):
    auto = "auto"
    reference = "reference"
    sdpa = "sdpa"
    triton = "triton"


class CpuAttention(Enum):
    """Who answers `auto` on a CPU: PyTorch, or in a compiled float32 run our own C++ (`kernels.cpu`)."""

    sdpa = "sdpa"
    cpp = "cpp"


@dataclass(kw_only=True)
class AttentionConfig:
    kind: AttentionKind = AttentionKind.auto


class LossKind(Enum):
    """`full` holds the logits of a whole micro-batch, the others those of a few tokens at a time: `chunked`
    by PyTorch's operations, `triton` by a kernel, `auto` by the kernel where it has proved itself on a GPU,
    else as `chunked`."""

    full = "full"
    chunked = "chunked"
    triton = "triton"
    auto = "auto"


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


class ParametrizationKind(Enum):
    standard = "standard"
    mup = "mup"
    complete_p = "complete_p"


@dataclass(kw_only=True)
class ParametrizationConfig:
    """How init, learning rates and scales follow width and depth (`harness.model.parametrization`).

    Under `mup` and `complete_p`, optim.lr, optim.weight_decay and optim.eps are those of a model of
    `base_width` and `base_depth`, where they were tuned; `mup` scales the width alone. `standard` reads
    nothing else here. `depth_exponent` is CompleteP's alpha.
    """

    kind: ParametrizationKind = ParametrizationKind.standard
    base_width: int = 64
    base_depth: int = 2
    depth_exponent: float = 1.0

    def __post_init__(self) -> None:
        if self.base_width < 1 or self.base_depth < 1:
            raise ValueError("parametrization.base_width and parametrization.base_depth must be at least 1")
        if not 0.5 <= self.depth_exponent <= 1:
            raise ValueError(
                f"parametrization.depth_exponent must lie in [0.5, 1], not {self.depth_exponent}"
            )
