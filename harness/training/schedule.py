"""Learning-rate schedules: each a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class ScheduleKind(Enum):
    wsd = "wsd"
    cosine = "cosine"
    constant = "constant"


@dataclass(kw_only=True)
class ScheduleConfig:
    """Warm-up lasts `warmup_fraction` of the run, or `warmup_tokens` where that is shorter."""

    kind: ScheduleKind = ScheduleKind.wsd
    warmup_tokens: int | None = None
    warmup_fraction: float = 0.02
    cooldown_fraction: float = 0.3
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup_tokens is not None and self.warmup_tokens < 0:
            raise ValueError("schedule.warmup_tokens must not be negative")
        for name in ("warmup_fraction", "cooldown_fraction", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"schedule.{name} must lie in [0, 1], not {getattr(self, name)}")
        if self.warmup_fraction + self.cooldown_fraction > 1:
            raise ValueError("schedule: warm-up and cooldown together are longer than the run")


LrAt = Callable[[int], float]
"""The learning rate of optimizer step 0, 1, ..., steps - 1."""


def build_schedule(config: ScheduleConfig, peak: float, steps: int, batch_tokens: int) -> LrAt:
    warmup = warmup_steps(config, steps, batch_tokens)
    floor = config.final_fraction
    match config.kind:
        case ScheduleKind.wsd:
            cooldown = steps - trunk_steps(config, steps)
            return lambda step: peak * wsd(step, steps, warmup, cooldown, floor)
        case ScheduleKind.cosine:
            return lambda step: peak * cosine(step, steps, warmup, floor)
        case ScheduleKind.constant:
            return lambda step: peak * warm(step, warmup)


def warmup_steps(config: ScheduleConfig, steps: int, batch_tokens: int) -> int:
    longest = int(config.warmup_fraction * steps)
    return (
        longest
        if config.warmup_tokens is None
        else min(longest, math.ceil(config.warmup_tokens / batch_tokens))
    )


def trunk_steps(config: ScheduleConfig, steps: int) -> int:
    """How many steps come before the rate depends on the length of the run, but for its warm-up."""
    match config.kind:
        case ScheduleKind.wsd:
            return steps - round(config.cooldown_fraction * steps)
        case ScheduleKind.cosine:
            return 0
        case ScheduleKind.constant:
            return steps


def warm(step: int, warmup: int) -> float:
    """Linear from 1 / (warmup + 1) to 1: no step is wasted at zero."""
    return min(1.0, (step + 1) / (warmup + 1))


def wsd(step: int, steps: int, warmup: int, cooldown: int, floor: float) -> float:
    """Warm up, stay, cool down by 1 - sqrt (Hagele et al. 2024, arXiv:2405.18392)."""
    into_cooldown = step - (steps - cooldown)
    if into_cooldown < 0:
        return warm(step, warmup)
    return floor + (1 - floor) * (1 - math.sqrt((into_cooldown + 1) / (cooldown + 1)))


def cosine(step: int, steps: int, warmup: int, floor: float) -> float:
    """Warm up, then half a cosine from 1 to `floor` (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    if step < warmup:
        return warm(step, warmup)
    progress = (step - warmup + 1) / (steps - warmup + 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
