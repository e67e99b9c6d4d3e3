"""What a cell will take: memory from its shape, time from what was measured or stated, money from time."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.budget import Horizon
from harness.shape import ModelShape
from harness.sweep.plan import TimeBasis

SECONDS_PER_HOUR = 3600


@dataclass(kw_only=True)
class CostConfig:
    """What you know of your devices; whatever is not given stays unknown in a plan, it is never guessed.

    `mfu` is the share of `hardware.peak_flops` to count on where no run of the same shape has been measured.
    """

    mfu: float | None = None
    price_per_device_hour: float | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        if self.mfu is not None and not 0 < self.mfu <= 1:
            raise ValueError(f"cost.mfu must lie in (0, 1], not {self.mfu}")
        price = self.price_per_device_hour
        if price is not None and not 0 <= price < math.inf:
            raise ValueError(f"cost.price_per_device_hour must be a number of at least 0, not {price}")


@dataclass(frozen=True)
class Estimate:
    """Peak bytes; seconds of training on one device, without start-up, validation and saving; their price."""

    memory_bytes: int
    seconds: float | None
    basis: TimeBasis
    cost: float | None


Speeds = Mapping[str, float]
"""Tokens a second by `speed_key`."""


def speed_key(frozen: Mapping[str, Any]) -> str:
    """What a speed depends on, of a frozen config: the shape, the batch, the optimizer, the hardware."""
    config = frozen["config"]
    hardware = {name: value for name, value in config["hardware"].items() if name != "peak_flops"}
    optimizer = config["optim"]["kind"]
    ways = (config["attention"], config.get("loss"))
    parts = (frozen["shape"], frozen["horizon"]["batch_sequences"], optimizer, hardware, ways)
    return json.dumps(parts, sort_keys=True)


def median_speeds(measured: Iterable[tuple[str, float]]) -> Speeds:
    """The median of what finished runs report, by key; a speed of zero was not measured."""
    by_key: dict[str, list[float]] = defaultdict(list)
    for key, tokens_per_second in measured:
        if tokens_per_second > 0:
            by_key[key].append(tokens_per_second)
    return {key: statistics.median(values) for key, values in by_key.items()}


def estimate(
    shape: ModelShape, memory_bytes: int, frozen: Mapping[str, Any], speeds: Speeds, cost: CostConfig
) -> Estimate:
    """Of a shape, its memory and its frozen config (`harness.training.cell.Cell.frozen`)."""
    seconds, basis = training_seconds(shape, frozen, speeds, cost)
    price = cost.price_per_device_hour
    return Estimate(
        memory_bytes=memory_bytes,
        seconds=seconds,
        basis=basis,
        cost=None if seconds is None or price is None else seconds / SECONDS_PER_HOUR * price,
    )


def training_seconds(
    shape: ModelShape, frozen: Mapping[str, Any], speeds: Speeds, cost: CostConfig
) -> tuple[float | None, TimeBasis]:
    """Tokens over the measured speed, else FLOPs over the stated one, else unknown."""
    tokens = Horizon(**frozen["horizon"]).tokens
    if speeds and (speed := speeds.get(speed_key(frozen))):
        return tokens / speed, TimeBasis.measured
    peak = frozen["config"]["hardware"]["peak_flops"]
    if peak and cost.mfu:
        return shape.training_flops(tokens) / (peak * cost.mfu), TimeBasis.stated
    return None, TimeBasis.unknown
