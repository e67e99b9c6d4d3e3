"""A forecast of one run's loss: a point, an interval, a verdict, and where each came from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.errors import WrongInput
from harness.forecast.allocation import Regret, allocation_json, allocations, regret
from harness.forecast.config import ForecastConfig
from harness.forecast.engine import Engine, Prediction, Target, build_engine, columns_of
from harness.forecast.ensemble import Ensemble, fit_ensemble
from harness.forecast.gate import Verdict, judge
from harness.forecast.inflight.trajectory import Trajectory
from harness.forecast.ladder import Ladder
from harness.forecast.repetition import Repetition, check_repetition, constants, repetition
from harness.forecast.rolling import Rolling
from harness.laws.config import FlopsKind
from harness.laws.conventions import TokenCost, token_cost
from harness.laws.fit import Fit
from harness.laws.observations import Observations
from harness.laws.surfaces import Floats


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """`loss` and `interval` are None when the verdict is refused; the number then stands in `reasons`."""

    target: Target
    verdict: Verdict
    reasons: tuple[str, ...]
    loss: float | None
    interval: tuple[float, float] | None
    prediction: Prediction
    fit: Fit
    backtest: Rolling
    config: ForecastConfig
    optimum: dict[str, Any] | None
    laws: tuple[dict[str, Any], ...]
    regret: Regret | None
    ladder: Ladder | None = None
    repetition: Repetition | None = None

    def to_json(self) -> dict[str, Any]:
        """All numbers finite. A refused forecast shows no number but the one in its reason."""
        refused = self.verdict is Verdict.refused
        return {
            "verdict": self.verdict.value,
            "reasons": list(self.reasons),
            "loss": self.loss,
            "interval": None if self.interval is None else list(self.interval),
            "level": self.config.level,
            "target": {**vars(self.target), "flops": self.target.budget},
            "extrapolation_ratio": self.prediction.ratio,
            "interval_components_log_loss": None if refused else self.prediction.components(),
            "members": None if refused else dict(self.prediction.members),
            "weights": dict(self.prediction.weights),
            "optimum": None if refused else self.optimum,
            "laws": None if refused else list(self.laws),
            "regret": None if refused or self.regret is None else vars(self.regret),
            "ladder": self.ladder and self.ladder.to_json(),
            "repetition": self.repetition and self.repetition.to_json(),
            "law": self.fit.law,
            "fit": self.fit.to_json(),
            "backtest": self.backtest.to_json(),
            "conventions": self.fit.conventions,
            "config": config_json(self.config),
            "data_hash": self.fit.data_hash,
        }


def config_json(config: ForecastConfig) -> dict[str, Any]:
    return {
        **vars(config),
        "params": config.params and config.params.value,
        "resampling": config.resampling.value,
    }


def predict(
    observations: Observations,
    target: Target,
    config: ForecastConfig,
    other: tuple[Observations, Target] | None = None,
    curves: Sequence[Trajectory] = (),
) -> Forecast:
    """Forecast the loss of `target` from a sweep. Deterministic for a given seed; see `bet_on`.

    Raises CannotAnswer when there are too few rows to fit.
    """
    refuse_other_data(observations, target)
    return bet_on(build_engine(observations, config), target, other, curves)


def bet_on(
    engine: Engine,
    target: Target,
    other: tuple[Observations, Target] | None = None,
    curves: Sequence[Trajectory] = (),
    unique_tokens: float | None = None,
) -> Forecast:
    """`other` is the same sweep and target under the other convention of N; it widens the interval by how
    much the choice matters. `curves` are the loss curves of the runs, which the verdict looks at;
    `unique_tokens` are those of the target. Raises WrongInput when the target is of other data."""
    refuse_other_data(engine.observations, target)
    found = None
    if unique_tokens is not None and unique_tokens < target.tokens:
        found = repetition(target, unique_tokens, constants(engine))
    others, labels = other_convention(engine, other, found)
    asked = target if found is None else found.asked(target)
    prediction = with_members(engine.predict([asked], others)[0], others, labels)
    checks = check_repetition(engine.observations, found, unique_tokens is not None)
    judged = judge(engine, asked, prediction, curves, checks)
    return replace(forecast_of(engine, target, prediction, judged), repetition=found)


def forecast_of(
    engine: Engine, target: Target, prediction: Prediction, judged: tuple[Verdict, tuple[str, ...]]
) -> Forecast:
    verdict, reasons = judged
    refused = verdict is Verdict.refused
    ensemble = engine.weighed(prediction.ratio)
    cost = token_cost(engine.observations, FlopsKind.auto)
    return Forecast(
        target=target,
        verdict=verdict,
        reasons=reasons,
        loss=None if refused else prediction.loss,
        interval=None if refused else prediction.interval,
        prediction=prediction,
        fit=engine.fit,
        backtest=engine.rolling,
        config=engine.config,
        optimum=allocation_json(ensemble, target.budget, cost),
        laws=tuple(law_rows(ensemble, target.budget, cost, prediction)),
        regret=regret(ensemble, target.budget, cost),
        ladder=engine.ladder,
    )


def way_to(engine: Engine, target: Target, steps: int = 40) -> list[dict[str, Any]]:
    """The ensemble from the cheapest run's compute to the target's, at the target's tokens per parameter:
    `flops`, `loss` and `interval` at `steps` budgets, the last of them the target's own."""
    budgets = np.geomspace(min(engine.observations.flops.min(), target.budget), target.budget, steps)
    found = []
    for share in (budgets / target.budget).tolist():
        at = Target(
            params=target.params * math.sqrt(share),
            tokens=target.tokens * math.sqrt(share),
            flops=target.budget * share,
        )
        said = engine.predict([at])[0]
        found.append({"flops": at.budget, "loss": said.loss, "interval": list(said.interval)})
    return found


def law_rows(
    ensemble: Ensemble, flops: float, cost: TokenCost, prediction: Prediction
) -> Iterator[dict[str, Any]]:
    """Every law: its weight, its loss at the target with its own interval, how it would spend the budget."""
    best = {a.law: a for a in allocations(ensemble, flops, cost)}
    for name in ensemble.names:
        spent = best.get(name)
        yield {
            "law": name,
            "weight": prediction.weights[name],
            "loss": prediction.members[name],
            "interval": list(prediction.member_intervals[name]),
            "params": spent and spent.params,
            "tokens": spent and spent.tokens,
            "tokens_per_param": spent and spent.tokens / spent.params,
        }


def other_convention(
    engine: Engine, other: tuple[Observations, Target] | None, found: Repetition | None
) -> tuple[Floats | None, list[str]]:
    """ln L of the laws under the other convention of N, [laws, 1], and their names. A target that repeats
    its data is worth the same tokens under both; what its parameters are worth is known under one."""
    if other is None or engine.ladder is not None:  # a law of compute counts no parameters
        return None, []
    rows, target = other
    if found is not None:
        target = replace(target, tokens=found.tokens_worth, flops=target.budget)
    ensemble = fit_ensemble(rows, engine.config.delta, engine.ensemble.members)
    labels = [f"{name}, N {rows.params_kind.value}" for name in ensemble.names]
    return ensemble.member_log_loss(columns_of([target])), labels


def with_members(prediction: Prediction, others: Floats | None, labels: list[str]) -> Prediction:
    """The prediction with the other analyses named among its members."""
    if others is None:
        return prediction
    more = dict(zip(labels, np.exp(others[:, 0]).tolist(), strict=True))
    return replace(prediction, members={**prediction.members, **more})


def refuse_other_data(observations: Observations, target: Target) -> None:
    """Raises WrongInput when the target is of another corpus or tokenizer than the sweep."""
    for label, wanted, found in (
        ("corpus", target.corpus_hash, observations.corpus_hashes[0]),
        ("tokenizer", target.tokenizer_hash, observations.tokenizer_hashes[0]),
    ):
        if wanted and found and wanted != found:
            raise WrongInput(
                f"the target's {label} ({wanted[:12]}) is not the sweep's ({found[:12]}); "
                "a law does not carry over"
            )
