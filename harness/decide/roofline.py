"""How long one decoding step takes at least: the larger of its arithmetic and its memory traffic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from harness.errors import WrongInput

FLOPS_PER_PARAM_TOKEN = 2.0
"""Of a forward pass; attention over the context is left out."""


class Bound(Enum):
    compute = "compute"
    memory = "memory"


@dataclass(frozen=True, kw_only=True)
class Model:
    """`params_active` are read by one token's arithmetic, `params_total` lie in memory."""

    params_active: float
    params_total: float
    bytes_per_param: float
    kv_bytes_per_token: float


@dataclass(frozen=True, kw_only=True)
class Device:
    flops_per_second: float
    bytes_per_second: float


@dataclass(frozen=True)
class DecodingStep:
    """One token for each of `batch` sequences; lower bounds in seconds."""

    batch: int
    compute_seconds: float
    memory_seconds: float

    @property
    def seconds(self) -> float:
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def bound(self) -> Bound:
        return Bound.compute if self.compute_seconds >= self.memory_seconds else Bound.memory

    @property
    def tokens_per_second(self) -> float:
        return self.batch / self.seconds


def decoding_step(model: Model, device: Device, batch: int, context: int) -> DecodingStep:
    """t >= max(2 B N_active / FLOPS, (weights + B context kv) / bandwidth).

    All weights are read once a step, which holds for a mixture of experts only when the batch touches every
    expert. Raises WrongInput for a batch below one or a negative context.
    """
    if batch < 1 or context < 0:
        raise WrongInput(f"a decoding step wants batch >= 1 and context >= 0, not {batch} and {context}")
    weights = model.params_total * model.bytes_per_param
    traffic = weights + batch * context * model.kv_bytes_per_token
    arithmetic = FLOPS_PER_PARAM_TOKEN * batch * model.params_active
    return DecodingStep(batch, arithmetic / device.flops_per_second, traffic / device.bytes_per_second)
