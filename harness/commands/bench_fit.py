"""What a fit costs, beside the procedure it replaces; both on the same rows and the same resamples."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.commands.reference import BOOTSTRAPS, Gradients, Rows, build_objective, descend, grid, refit
from harness.laws.bootstrap import drawn, resample
from harness.laws.collect import collect
from harness.laws.config import LawConfig, LossUnit, ParamsKind, Resampling
from harness.laws.expansion import Floats
from harness.laws.fit import solve
from harness.laws.forms.chinchilla import ALPHA
from harness.laws.observations import FLOPS_6ND, Observations, Row

PLANTED = {"A": 482.0, "B": 2085.4, "E": 1.817, "alpha": 0.348, "beta": 0.366}
"""The law that Besiroglu et al. 2404.10102 find in the Chinchilla runs."""

RESIDUAL, FREEDOM = 0.004, 3
"""Student's t with few degrees of freedom: half a per cent of scatter and some rows far off, as there."""

ROWS = 240


def planted_observations(rows: int = ROWS, seed: int = 0) -> Observations:
    """`PLANTED` over the sizes and budgets of the Chinchilla runs, up to 3e21 FLOPs."""
    rng = np.random.default_rng(seed)
    n, c = np.exp(rng.uniform(np.log([5e7, 6e18]), np.log([1e10, 3e21]), (rows, 2))).T
    d = c / (6 * n)
    loss = PLANTED["E"] + PLANTED["A"] / n ** PLANTED["alpha"] + PLANTED["B"] / d ** PLANTED["beta"]
    loss = loss * np.exp(RESIDUAL * rng.standard_t(FREEDOM, rows))
    table = [Row(name=f"run{i}", params=n[i], tokens=d[i], flops=c[i], loss=loss[i]) for i in range(rows)]
    return collect(table, ParamsKind.total, LossUnit.nats_per_token, FLOPS_6ND)


@dataclass(frozen=True)
class Procedure:
    """Processor seconds of the whole procedure and their standard error, where they are scaled up from a
    sample; the objective it reached, and theta [K, 5] of its resamples."""

    name: str
    seconds: float
    seconds_error: float
    objective: float
    theta: Floats

    def standard_errors(self, first: int | None = None) -> dict[str, float]:
        """Of the natural parameters, over the first resamples."""
        theta = self.theta[:first]
        natural = np.concatenate([np.exp(theta[:, :ALPHA]), theta[:, ALPHA:]], axis=1)
        return dict(zip(PLANTED, natural.std(axis=0, ddof=1).tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        return {
            "procedure": self.name,
            "seconds": self.seconds,
            "seconds_standard_error": self.seconds_error,
            "objective": self.objective,
            "bootstraps": len(self.theta),
            "standard_errors": self.standard_errors(),
        }


@dataclass(frozen=True)
class FitSpeed:
    """`sample` is the share of the references that was run."""

    rows: int
    sample: float
    ours: Procedure
    references: tuple[Procedure, ...]

    def ratio(self, reference: Procedure) -> float:
        return reference.seconds / self.ours.seconds

    def to_json(self) -> dict[str, Any]:
        shared = len(self.references[0].theta)
        return {
            "rows": self.rows,
            "sample": self.sample,
            "ours": {
                **self.ours.to_json(),
                "standard_errors_same_resamples": self.ours.standard_errors(shared),
            },
            "references": [{**one.to_json(), "ratio": self.ratio(one)} for one in self.references],
        }


def fit_speed(observations: Observations, sample: float, turns: int, seed: int = 0) -> FitSpeed:
    """Ours whole, `2 turns` times; in between, parts of the references' starts and then of their resamples.

    `sample` is the share of these that is run, the starts drawn at random; their seconds are the mean per
    start times all starts and the mean per resample times all resamples. All seconds are of the processor
    and of one thread, so that other work on the machine does not count.
    """
    import torch

    torch.set_num_threads(1)
    least = 2 * turns
    starts = np.random.default_rng(seed).permutation(grid())[: max(least, math.ceil(sample * len(grid())))]
    draws = drawn(np.arange(len(observations)), BOOTSTRAPS, np.random.default_rng(seed))
    draws = draws[: max(least, math.ceil(sample * BOOTSTRAPS))]
    rows = (np.log(observations.params), np.log(observations.tokens), np.log(observations.loss))
    references = [Reference(gradients, rows) for gradients in Gradients]
    ours: list[Procedure] = []
    for turn in range(turns):
        ours.append(own_procedure(observations, seed))
        for one in references:
            one.descend(starts[turn::turns])
    for turn in range(turns):
        ours.append(own_procedure(observations, seed))
        for one in references:
            one.resample(draws[turn::turns])
    return FitSpeed(
        rows=len(observations),
        sample=sample,
        ours=replace(ours[0], seconds=statistics.median(one.seconds for one in ours)),
        references=tuple(one.procedure() for one in references),
    )


def own_procedure(observations: Observations, seed: int) -> Procedure:
    """The optimum and the resamples, as `harness fit` finds them."""
    began = time.process_time()
    solution = solve(observations, LawConfig())
    values = resample(solution, BOOTSTRAPS, Resampling.cases, seed).values
    seconds = time.process_time() - began
    theta = np.column_stack([np.log(values[:, :ALPHA]), values[:, ALPHA:]])
    return Procedure("ours", seconds, 0.0, solution.objective, theta)


class Reference:
    """A reference procedure as far as it has been run: seconds and findings, start by start."""

    def __init__(self, gradients: Gradients, rows: Rows) -> None:
        self.gradients, self.rows = gradients, rows
        self.objective = build_objective(gradients, *rows)
        self.arrived: list[tuple[Floats, float]] = []
        self.theta: list[Floats] = []
        self.start_seconds: list[float] = []
        self.resample_seconds: list[float] = []
        descend(self.objective, grid()[0])  # a library's first call is not its speed

    @property
    def best(self) -> tuple[Floats, float]:
        return min(self.arrived, key=lambda found: found[1])

    def descend(self, starts: Floats) -> None:
        for start in starts:
            began = time.process_time()
            self.arrived.append(descend(self.objective, start))
            self.start_seconds.append(time.process_time() - began)

    def resample(self, draws: Floats) -> None:
        """Refit from the best point of all starts so far."""
        best, _ = self.best
        for counts in draws:
            began = time.process_time()
            self.theta.append(refit(self.gradients, self.rows, counts, best))
            self.resample_seconds.append(time.process_time() - began)

    def procedure(self) -> Procedure:
        """Scaled up to all starts and resamples."""
        phases = ((np.array(self.start_seconds), len(grid())), (np.array(self.resample_seconds), BOOTSTRAPS))
        return Procedure(
            name=self.gradients.value,
            seconds=sum(float(seconds.mean()) * count for seconds, count in phases),
            seconds_error=math.hypot(*(total_error(*phase) for phase in phases)),
            objective=self.best[1],
            theta=np.array(self.theta),
        )


def total_error(seconds: Floats, count: int) -> float:
    """Standard error of `count` times the mean of a sample without replacement; zero for all of them."""
    left_out = 1 - len(seconds) / count
    return count * float(seconds.std(ddof=1)) * math.sqrt(left_out / len(seconds))
