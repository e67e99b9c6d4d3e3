"""A fit of one or two steps in a chain: predictions with intervals, and the JSON of every other fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.errors import WrongInput
from harness.laws.bootstrap import Interval, finite, interval
from harness.laws.config import FitConfig, LawName, Resampling
from harness.laws.fit import FitStatus, dropped_json
from harness.laws.forms.form import Rows
from harness.laws.responses.resample import expanded
from harness.laws.responses.step import Step
from harness.laws.surfaces import Floats
from harness.laws.tables import ColumnTable
from harness.runs import Skipped, content_hash


@dataclass(frozen=True, kw_only=True)
class ResponseFit:
    """A chain of steps: the response of each is the only column of the next.

    `replicates` are the parameters [K, p] of each step on the same resamples. `details` is what a law adds
    to its JSON. The response lies within `limits`, and so does every interval of it.
    """

    law: LawName
    response: str
    steps: tuple[Step, ...]
    replicates: tuple[Floats, ...]
    conventions: dict[str, str]
    table: ColumnTable
    level: float
    bootstrap: dict[str, Any] | None
    notes: tuple[str, ...] = ()
    dropped: tuple[Skipped, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    limits: tuple[float, float] = (-math.inf, math.inf)

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.steps[0].form.columns

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(reason for step in self.steps for reason in step.reasons)

    @property
    def status(self) -> FitStatus:
        return FitStatus.not_identified if self.reasons else FitStatus.identified

    @property
    def percentiles(self) -> float:
        """The share of resamples between the ends of an interval, see `expanded`."""
        if self.bootstrap is None:
            return self.level
        free = len(self.steps[0].params) - len(self.steps[0].how.fixed)
        resampling = Resampling(self.bootstrap["resampling"])
        return expanded(self.level, self.bootstrap["units"], free, resampling)

    @property
    def params(self) -> dict[str, float]:
        return {name: value for step in self.steps for name, value in step.params.items()}

    def predict(self, columns: Mapping[str, object]) -> Floats:
        """The response [n]."""
        return self.chained([np.array([list(step.params.values())]) for step in self.steps], columns)[0]

    def samples(self, columns: Mapping[str, object]) -> Floats:
        """The response on every resample, [K, n]."""
        return self.chained(self.replicates, columns)

    def chained(self, values: Sequence[Floats], columns: Mapping[str, object]) -> Floats:
        """[K, n] for values [K, p] of each step."""
        rows: Rows = self.steps[0].form.rows(columns)
        for number, (step, value) in enumerate(zip(self.steps, values, strict=True), start=1):
            response, _ = step.form.evaluate(value.T[:, :, None], rows)
            rows = {name: response for following in self.steps[number:] for name in following.form.columns}
        return response

    def intervals(self) -> dict[str, Interval]:
        return {
            name: interval(values[:, i], self.percentiles)
            for step, values in zip(self.steps, self.replicates, strict=True)
            for i, name in enumerate(step.form.names)
            if len(values)
        }

    def predictions(self, at: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
        """The response with its interval at rows of `inputs`. Raises WrongInput for rows of other length."""
        found = []
        for row in at:
            if len(row) != len(self.inputs) or not all(np.isfinite(row)) or not all(x > 0 for x in row):
                raise WrongInput(f"at={list(row)}: this law wants positive {', '.join(self.inputs)}")
            point = dict(zip(self.inputs, row, strict=True))
            drawn = self.samples(point)
            found.append(
                {
                    **point,
                    self.response: float(self.predict(point)[0]),
                    "interval": interval(np.clip(drawn[:, 0], *self.limits), self.percentiles)
                    if len(drawn)
                    else None,
                }
            )
        return found

    def data_hash(self) -> str:
        """SHA-256 of the numbers that every step was fitted to, whatever the order of the rows."""

        def rows(step: Step) -> list[list[float]]:
            columns = [*step.solution.rows.values(), step.solution.problem.y[0]]
            return sorted(np.column_stack(columns).tolist())

        return content_hash({"steps": [rows(step) for step in self.steps], "conventions": self.conventions})

    def to_json(self, at: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
        last = self.steps[-1]
        return {
            "law": self.law.value,
            "status": self.status.value,
            "reasons": list(self.reasons),
            "notes": [*self.notes, *(note for step in self.steps for note in step.notes)],
            "params": self.params,
            "standard_errors": {
                name: finite(error) for step in self.steps for name, error in step.standard_errors.items()
            },
            "intervals": self.intervals(),
            "objective": last.solution.objective,
            "n": last.n,
            "residual_rms": last.residual_rms,
            "steps": [step.to_json() for step in self.steps],
            "dropped": dropped_json((*self.table.dropped, *self.dropped)),
            "conventions": {**last.conventions, **self.conventions},
            "bootstrap": self.bootstrap,
            "data_hash": self.data_hash(),
            "inputs": list(self.inputs),
            "predictions": self.predictions(at),
            **self.details,
        }


def require_cases(config: FitConfig, units: str) -> None:
    """Raises WrongInput for a resampling that a law which redraws whole `units` does not do."""
    if config.bootstraps and config.resampling is not Resampling.cases:
        raise WrongInput(
            f"fit.resampling={config.resampling.value}: law={config.law.name.value} redraws whole {units}; "
            "use fit.resampling=cases"
        )


def bootstrap_json(config: FitConfig, units: int) -> dict[str, Any] | None:
    """`units` is how many runs, problems or cells a replicate redraws."""
    if not config.bootstraps:
        return None
    return {
        "count": config.bootstraps,
        "resampling": config.resampling.value,
        "units": units,
        "seed": config.seed,
        "level": config.level,
    }
