"""What the forecast would have been worth: hold out the dearest runs, bet on them from the cheap ones.

Held out are the runs with C >= C_max / 2; the rows below the smallest of these by the ratio go through the
same engine as a real forecast. The losses held out enter the errors and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.forecast.config import ForecastConfig
from harness.forecast.engine import Engine, Prediction, Target, build_engine
from harness.forecast.ensemble import MEMBERS
from harness.forecast.gate import Verdict, judge
from harness.forecast.inflight.trajectory import Trajectory
from harness.forecast.repetition import constants, repetition
from harness.laws.bootstrap import resample
from harness.laws.fit import dropped_json
from harness.laws.observations import SAME_SIZE, Observations
from harness.laws.surfaces import Floats
from harness.runs import Skipped

HELD_OUT = 2.0
"""Runs within this factor of the largest compute are held out."""

LEVEL = 0.9


@dataclass(frozen=True)
class Case:
    """One law on one split. Errors are (predicted - actual)/actual: the median of their absolute values,
    the one of the dearest run (of equals that predicted best), their mean, the share inside the interval."""

    law: str
    ratio: float
    error_median: float
    error_top: float
    bias: float
    coverage90: float
    n_train: int
    n_test: int

    def figures(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("error_median", "error_top", "bias", "coverage90")}


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """`ensemble` and `baseline` are None when the split leaves nothing to fit; `reasons` then say why."""

    ratio: float
    cases: tuple[Case, ...]
    ensemble: Case | None
    baseline: Case | None
    weights: dict[str, float]
    verdict: Verdict
    reasons: tuple[str, ...]
    rolling: dict[str, Any]
    points: tuple[dict[str, Any], ...]
    n_train: int
    n_test: int
    conventions: dict[str, str]
    dropped: tuple[Skipped, ...]
    data_hash: str

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.value,
            "reasons": list(self.reasons),
            "holdout_ratio": self.ratio,
            "n_train": self.n_train,
            "n_test": self.n_test,
            "ensemble": self.ensemble and self.ensemble.figures(),
            "baseline": self.baseline and {"law": self.baseline.law, **self.baseline.figures()},
            "cases": [vars(case) for case in self.cases],
            "weights": dict(self.weights),
            "points": list(self.points),
            "rolling": self.rolling,
            "conventions": self.conventions,
            "dropped": dropped_json(self.dropped),
            "data_hash": self.data_hash,
        }


def split(observations: Observations, ratio: float) -> tuple[Observations, Observations]:
    """The rows to fit and those held out. Raises CannotAnswer when nothing is cheap enough to fit."""
    flops = observations.flops
    held = flops >= flops.max() / HELD_OUT
    cheap = flops <= flops[held].min() / ratio
    if not cheap.any():
        raise CannotAnswer(
            f"no run has {ratio:g} times less compute than those held out ({flops[held].min():.3g} FLOPs and "
            f"more); the cheapest of {len(flops)} has {flops.min():.3g}: the sweep cannot test that ratio"
        )
    return observations.subset(cheap), observations.subset(held)


def backtest(
    observations: Observations, ratio: float, config: ForecastConfig, curves: Sequence[Trajectory] = ()
) -> Backtest:
    """Refused, without figures, when the split leaves too few rows to fit a law."""
    config = replace(config, level=LEVEL)
    try:
        train, held = split(observations, ratio)
        engine = build_engine(train, config)
    except CannotAnswer as error:
        return nothing_to_test(observations, ratio, str(error))
    targets = [
        Target(params=n, tokens=d, flops=c)
        for n, d, c in zip(held.params.tolist(), held.tokens.tolist(), held.flops.tolist(), strict=True)
    ]
    if held.unique_tokens is not None and (held.unique_tokens < held.tokens).any():
        law = constants(engine)
        found = [repetition(t, u, law) for t, u in zip(targets, held.unique_tokens.tolist(), strict=True)]
        targets = [t if one is None else one.asked(t) for t, one in zip(targets, found, strict=True)]
    predictions = engine.predict(targets)
    top = dearest(held, np.array([p.loss for p in predictions]))
    verdict, reasons = judge(engine, targets[top], predictions[top], curves)

    def case(law: str, losses: Sequence[float], intervals: Sequence[tuple[float, float]]) -> Case:
        return case_of(law, ratio, held, losses, intervals, len(train), top)

    return Backtest(
        ratio=ratio,
        cases=tuple(
            case(
                name, [p.members[name] for p in predictions], [p.member_intervals[name] for p in predictions]
            )
            for name in engine.ensemble.names
        ),
        ensemble=case("ensemble", [p.loss for p in predictions], [p.interval for p in predictions]),
        baseline=case(engine.fit.form.name, *plain_law(engine, held, predictions)),
        weights=predictions[top].weights,
        verdict=verdict,
        reasons=reasons,
        rolling=engine.rolling.to_json(),
        points=tuple(points(held, predictions)),
        n_train=len(train),
        n_test=len(held),
        conventions=engine.fit.conventions,
        dropped=observations.dropped,
        data_hash=observations.data_hash(),
    )


def nothing_to_test(observations: Observations, ratio: float, reason: str) -> Backtest:
    return Backtest(
        ratio=ratio,
        cases=(),
        ensemble=None,
        baseline=None,
        weights={member.name: 1 / len(MEMBERS) for member in MEMBERS},
        verdict=Verdict.refused,
        reasons=(reason,),
        rolling={},
        points=(),
        n_train=0,
        n_test=0,
        conventions=observations.conventions,
        dropped=observations.dropped,
        data_hash=observations.data_hash(),
    )


def dearest(held: Observations, predicted: Floats) -> int:
    """The run of the largest compute; of several, the one predicted best. Losses held out play no part."""
    top = held.flops >= held.flops.max() / SAME_SIZE
    return int(np.where(top, predicted, np.inf).argmin())


def plain_law(
    engine: Engine, held: Observations, predictions: Sequence[Prediction]
) -> tuple[list[float], list[tuple[float, float]]]:
    """What the plain law says of the runs held out, with its own interval: its fit and the noise."""
    config = engine.config
    drawn = resample(engine.fit.solution, config.bootstraps, config.resampling, config.seed)
    logs = np.log(engine.fit.predict(held.columns))
    low, high = np.quantile(np.log(drawn.losses(held.columns)), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    noise = np.array([p.noise for p in predictions])
    ends = zip(
        np.exp(logs - np.hypot(np.maximum(logs - low, 0), noise)).tolist(),
        np.exp(logs + np.hypot(np.maximum(high - logs, 0), noise)).tolist(),
        strict=True,
    )
    return np.exp(logs).tolist(), list(ends)


def case_of(
    law: str,
    ratio: float,
    held: Observations,
    losses: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    n_train: int,
    top: int,
) -> Case:
    errors: Floats = np.array(losses) / held.loss - 1
    inside = [low <= actual <= high for (low, high), actual in zip(intervals, held.loss, strict=True)]
    return Case(
        law=law,
        ratio=ratio,
        error_median=float(np.median(np.abs(errors))),
        error_top=float(errors[top]),
        bias=float(np.mean(errors)),
        coverage90=float(np.mean(inside)),
        n_train=n_train,
        n_test=len(held),
    )


def points(held: Observations, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Every run held out beside what was said of it."""
    return [
        {
            "run_id": name,
            "params": float(held.params[i]),
            "tokens": float(held.tokens[i]),
            "flops": float(held.flops[i]),
            "actual": float(held.loss[i]),
            "predicted": p.loss,
            "interval": list(p.interval),
            "error": p.loss / float(held.loss[i]) - 1,
            "inside": bool(p.interval[0] <= held.loss[i] <= p.interval[1]),
            "components_log_loss": p.components(),
        }
        for i, (name, p) in enumerate(zip(held.run_ids, predictions, strict=True))
    ]
