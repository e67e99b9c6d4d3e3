"""The coordinate check (Yang et al. 2022, arXiv:2203.03466, D.1), over width and depth.

Activations of the first steps against the size of the model, as powers of it. Where a parametrization
transfers, what the steps change in every activation keeps its size. No torch: the activations are
measured in `harness.training.probe`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from statistics import fmean, linear_regression
from typing import Any

from harness.errors import WrongInput
from harness.shape import ModelConfig

STEPS = 10
SEEDS = 2
FLAT = 0.25
"""An exponent nearer to zero than to 1/2. In the limit of large models exponents are multiples of 1/2."""
GROWTH = (1, 2, 4, 8)


class Axis(Enum):
    width = "width"
    depth = "depth"


class Quantity(Enum):
    """Root mean squares over tokens and channels: the embedding's output; the sum over blocks of what
    each adds to the residual stream; the stream after the last block; the logits."""

    embedding = "embedding"
    blocks = "blocks"
    hidden = "hidden"
    logits = "logits"


class Moment(Enum):
    """At the start, after the last step, and the change between the two."""

    start = "start"
    end = "end"
    change = "change"


@dataclass(frozen=True)
class Magnitudes:
    """Root mean squares of one model's activations."""

    embedding: float
    blocks: tuple[float, ...]
    hidden: float
    logits: float

    def of(self, quantity: Quantity) -> float:
        return math.fsum(self.blocks) if quantity is Quantity.blocks else getattr(self, quantity.value)


@dataclass(frozen=True)
class Reading:
    """One model after `step` optimizer steps: its activations, and how far they are from step 0."""

    width: int
    depth: int
    seed: int
    step: int
    rms: Magnitudes
    change: Magnitudes

    def size(self, axis: Axis) -> int:
        return self.width if axis is Axis.width else self.depth


@dataclass(frozen=True)
class Trend:
    """One quantity against the size: geometric means over seeds, and the exponent of the power law."""

    axis: Axis
    quantity: Quantity
    moment: Moment
    sizes: tuple[int, ...]
    values: tuple[float, ...]
    exponent: float

    @property
    def flat(self) -> bool | None:
        """None at the start, on which nothing hangs: sums of independent terms that are scaled so as to
        keep their learned part (the logits in width, the stream in depth) start smaller in larger models."""
        return None if self.moment is Moment.start else abs(self.exponent) <= FLAT


@dataclass(frozen=True)
class CoordinateCheck:
    """`parametrization` names it; `model` is what was made wider and deeper."""

    parametrization: str
    model: str
    lr: float
    readings: tuple[Reading, ...]
    trends: tuple[Trend, ...]

    def flat(self, axis: Axis) -> bool:
        return all(trend.flat is not False for trend in self.trends if trend.axis is axis)

    def to_json(self) -> dict[str, Any]:
        return {
            "parametrization": self.parametrization,
            "model": self.model,
            "lr": self.lr,
            "steps": STEPS,
            "flat_below_exponent": FLAT,
            "flat": {axis.value: self.flat(axis) for axis in Axis},
            "trends": [
                {**asdict(t), "axis": t.axis.value, "quantity": t.quantity.value, "moment": t.moment.value}
                | {"flat": t.flat}
                for t in self.trends
            ],
            "readings": [asdict(reading) for reading in self.readings],
        }


def sizes_of(base: int, asked: Sequence[int], axis: Axis) -> list[int]:
    """The sizes to check along an axis, smallest first: those asked for, or 1, 2, 4 and 8 times the base.
    Raises WrongInput for fewer than two."""
    sizes = sorted({*asked} or {base * factor for factor in GROWTH})
    if len(sizes) < 2 or sizes[0] < 1:
        raise WrongInput(f"{axis.value}s={list(asked)}: a trend needs two positive {axis.value}s or more")
    return sizes


def shapes_to_check(model: ModelConfig, widths: Sequence[int], depths: Sequence[int]) -> list[ModelConfig]:
    """Every width at the smallest depth, every depth at the smallest width."""
    every = [(width, depths[0]) for width in widths] + [(widths[0], depth) for depth in depths[1:]]
    return [resized(model, width, depth) for width, depth in every]


def resized(model: ModelConfig, width: int, depth: int) -> ModelConfig:
    """`model` at another width and depth: heads of the same size, everything else in proportion.

    Raises WrongInput where that gives no whole number of heads or hidden units.
    """

    def scaled(what: str, value: int) -> int:
        if value * width % model.width:
            raise WrongInput(
                f"width {width} is not in proportion to model={model.name}: {what} would be "
                f"{value * width / model.width:.4g}; try multiples of {model.width}"
            )
        return value * width // model.width

    return replace(
        model,
        name=f"{model.name}-w{width}-d{depth}",
        width=width,
        depth=depth,
        n_heads=scaled("n_heads", model.n_heads),
        n_kv_heads=None if model.n_kv_heads is None else scaled("n_kv_heads", model.n_kv_heads),
        mlp_hidden=scaled("mlp_hidden", model.mlp_hidden),
    )


def trends(readings: Iterable[Reading]) -> tuple[Trend, ...]:
    """All quantities at all moments, along both axes."""
    readings = list(readings)
    least = {axis: min(reading.size(axis) for reading in readings) for axis in Axis}
    other = {Axis.width: Axis.depth, Axis.depth: Axis.width}
    return tuple(
        trend([r for r in readings if r.size(other[axis]) == least[other[axis]]], axis, quantity, moment)
        for axis in Axis
        for quantity in Quantity
        for moment in Moment
    )


def trend(readings: Sequence[Reading], axis: Axis, quantity: Quantity, moment: Moment) -> Trend:
    """`readings` of models that differ along `axis` and in seed alone."""
    step = 0 if moment is Moment.start else max(reading.step for reading in readings)
    sizes = sorted({reading.size(axis) for reading in readings})
    logs = [
        fmean(
            math.log((r.change if moment is Moment.change else r.rms).of(quantity))
            for r in readings
            if r.size(axis) == size and r.step == step
        )
        for size in sizes
    ]
    return Trend(
        axis=axis,
        quantity=quantity,
        moment=moment,
        sizes=tuple(sizes),
        values=tuple(map(math.exp, logs)),
        exponent=linear_regression([math.log(size) for size in sizes], logs).slope,
    )
