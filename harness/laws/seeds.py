"""The noise floor: how far runs that differ in nothing but their seeds scatter, by which seed it is.

A setting is a rung (params, tokens) at one learning rate and batch. Scatter is the standard deviation of ln
L, so that a share of the loss can be pooled over rungs; its intervals are those of chi-square, which assume
normal noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from harness.laws.observations import Observations


class SeedKind(Enum):
    """Which seeds differ, the others being equal. `unknown` is a column `seed` that does not say; of
    `init_and_data_order` any two runs differ in both."""

    init = "init"
    data_order = "data order"
    init_and_data_order = "init and data order"
    validation = "validation windows"
    unknown = "what the table does not say"


TRUSTED = 3
"""Degrees of freedom from which on a scatter is preferred to one of fewer seeds."""


@dataclass(frozen=True)
class Seeds:
    """Of one run, as text; empty where not known."""

    init: str
    data_order: str
    validation: str

    @classmethod
    def of(cls, text: str) -> Seeds:
        """From `init/data order/validation windows`."""
        init, _, rest = text.partition("/")
        data_order, _, validation = rest.partition("/")
        return cls(init, data_order, validation)

    def changed(self, kind: SeedKind) -> str:
        """The seed that runs of this kind differ in."""
        match kind:
            case SeedKind.data_order:
                return self.data_order
            case SeedKind.validation:
                return self.validation
        return self.init


@dataclass(frozen=True)
class SeedNoise:
    """Standard deviation of ln L between seeds, its degrees of freedom, and what the seeds were of."""

    std: float
    degrees_of_freedom: int
    of: str = SeedKind.unknown.value

    def half_width(self, level: float) -> float:
        """Of the interval of one run in ln L: the t quantile times the standard deviation."""
        from scipy import special

        return self.std * float(special.stdtrit(self.degrees_of_freedom, 0.5 + level / 2))

    def interval(self, level: float) -> tuple[float, float]:
        """Of the standard deviation: std sqrt(nu / quantile of chi-square), nu the degrees of freedom."""
        from scipy.special import chdtri

        freedom, tail = self.degrees_of_freedom, (1 - level) / 2
        low, high = (float(chdtri(freedom, p)) for p in (tail, 1 - tail))  # chdtri is of the upper tail
        return self.std * math.sqrt(freedom / low), self.std * math.sqrt(freedom / high)

    def to_json(self, level: float | None = None) -> dict[str, Any]:
        spread = {} if level is None else {"interval": list(self.interval(level))}
        return {"std": self.std, "degrees_of_freedom": self.degrees_of_freedom, "of": self.of, **spread}


@dataclass(frozen=True)
class RungNoise:
    """What was measured at one rung, by kind. `loss` is the mean of its runs."""

    params: float
    tokens: float
    runs: int
    loss: float
    noise: dict[SeedKind, SeedNoise]


@dataclass(frozen=True)
class NoiseFloor:
    """The rungs that have repeats, the noise pooled over them by kind, and `one_run`: what the loss of a run
    trained again scatters by, None when that was not measured."""

    rungs: tuple[RungNoise, ...]
    pooled: dict[SeedKind, SeedNoise]
    one_run: SeedNoise | None

    def to_json(self, level: float) -> dict[str, Any]:
        def by_kind(noise: dict[SeedKind, SeedNoise]) -> dict[str, Any]:
            return {kind.name: one.to_json(level) for kind, one in noise.items()}

        return {
            "rungs": [{**vars(rung), "noise": by_kind(rung.noise)} for rung in self.rungs],
            "pooled": by_kind(self.pooled),
            "one_run": self.one_run and self.one_run.to_json(level),
            "level": level,
            "response": "ln L",
        }


def seed_noise(observations: Observations) -> SeedNoise | None:
    """The noise of a single run: what the observations carry from elsewhere, else their own; None where no
    run was repeated."""
    return observations.noise_floor or noise_floor(observations).one_run


def noise_floor(observations: Observations) -> NoiseFloor:
    """From the rows before the best of each cell was chosen: a choice by loss hides the noise."""
    whole = observations.trials or observations
    places = list(zip(whole.params.tolist(), whole.tokens.tolist(), strict=True))
    measured = [rung_noise(whole, rows) for _, rows in sorted(grouped(places).items())]
    found = [rung for rung in measured if rung.noise]
    kinds = {kind: [rung.noise[kind] for rung in found if kind in rung.noise] for kind in SeedKind}
    by_kind = {kind: pool(kind, noises) for kind, noises in kinds.items() if noises}
    return NoiseFloor(tuple(found), by_kind, of_one_run(by_kind))


def rung_noise(observations: Observations, rows: Sequence[int]) -> RungNoise:
    """The noise among `rows` of one rung, over all its settings."""
    settings = [[rows[i] for i in of] for of in grouped([setting(observations, i) for i in rows]).values()]
    noise = {}
    for kind in SeedKind:
        if noises := [one for of in settings if (one := noise_of(kind, observations, of)) is not None]:
            noise[kind] = pool(kind, noises)
    return RungNoise(
        params=float(observations.params[rows[0]]),
        tokens=float(observations.tokens[rows[0]]),
        runs=len(rows),
        loss=float(np.exp(np.log(observations.loss[list(rows)]).mean())),
        noise=noise,
    )


def grouped(keys: Sequence[Any]) -> dict[Any, list[int]]:
    """Places by key."""
    found: dict[Any, list[int]] = {}
    for place, key in enumerate(keys):
        found.setdefault(key, []).append(place)
    return found


def setting(observations: Observations, row: int) -> tuple[float, ...]:
    """What must be equal among repeats, as far as it is known."""
    columns = (observations.lr, observations.batch_tokens)
    return tuple(float(column[row]) for column in columns if column is not None)


def noise_of(kind: SeedKind, observations: Observations, rows: Sequence[int]) -> SeedNoise | None:
    """Of the rows of one setting; None where nothing was repeated.

    Sets of a crossed design see the same seeds again and are not independent: no seed counts twice in the
    degrees of freedom.
    """
    log_loss = {Seeds.of(observations.seeds[i]): math.log(observations.loss[i]) for i in reversed(rows)}
    sets = [found for found in repeats(kind, list(log_loss)) if len(found) > 1]
    if not sets:
        return None
    squares = sum(float(np.var([log_loss[seeds] for seeds in found])) * len(found) for found in sets)
    spare = sum(len(found) - 1 for found in sets)
    different = len({seeds.changed(kind) for found in sets for seeds in found})
    return SeedNoise(math.sqrt(squares / spare), min(spare, different - 1), kind.value)


def repeats(kind: SeedKind, runs: Sequence[Seeds]) -> list[list[Seeds]]:
    """Sets of runs that differ in this kind of seed and in no other."""
    told = [run for run in runs if run.data_order]
    match kind:
        case SeedKind.unknown:
            return same([run for run in runs if not run.data_order], lambda run: run.validation)
        case SeedKind.init:
            return same(told, lambda run: (run.data_order, run.validation))
        case SeedKind.data_order:
            return same(told, lambda run: (run.init, run.validation))
        case SeedKind.validation:
            return same(told, lambda run: (run.init, run.data_order))
        case SeedKind.init_and_data_order:
            return [diagonal(runs) for runs in same(told, lambda run: run.validation)]


def same(runs: Sequence[Seeds], key: Callable[[Seeds], Any]) -> list[list[Seeds]]:
    return [[runs[i] for i in places] for places in grouped([key(run) for run in runs]).values()]


def diagonal(runs: Sequence[Seeds]) -> list[Seeds]:
    """Runs of which no two share a seed, the first of each that fits."""
    chosen: list[Seeds] = []
    for run in sorted(runs, key=lambda one: (one.init, one.data_order)):
        if all(run.init != one.init and run.data_order != one.data_order for one in chosen):
            chosen.append(run)
    return chosen


def pool(kind: SeedKind, noises: Sequence[SeedNoise]) -> SeedNoise:
    """Variances weighted by their degrees of freedom."""
    freedom = sum(noise.degrees_of_freedom for noise in noises)
    squares = sum(noise.degrees_of_freedom * noise.std**2 for noise in noises)
    return SeedNoise(math.sqrt(squares / freedom), freedom, kind.value)


def of_one_run(noise: dict[SeedKind, SeedNoise]) -> SeedNoise | None:
    """All seeds of training together where that was measured often enough, else the sum of its parts, else
    the part there is, which says what it is of. The validation windows are the same for all runs of a
    sweep: they shift its losses together."""
    both, unsaid = noise.get(SeedKind.init_and_data_order), noise.get(SeedKind.unknown)
    if both and both.degrees_of_freedom >= TRUSTED:
        return both
    parts = [one for kind in (SeedKind.init, SeedKind.data_order) if (one := noise.get(kind))]
    if len(parts) == 2:
        return added(parts)
    return unsaid or (parts[0] if parts else both)


def added(parts: Sequence[SeedNoise]) -> SeedNoise:
    """Variances of independent parts, with the degrees of freedom of Satterthwaite (1946)."""
    variances = [part.std**2 for part in parts]
    spread = sum(v * v / part.degrees_of_freedom for v, part in zip(variances, parts, strict=True))
    total = sum(variances)
    freedom = max(1, math.floor(total * total / spread)) if spread else parts[0].degrees_of_freedom
    return SeedNoise(math.sqrt(total), freedom, " plus ".join(part.of for part in parts))
