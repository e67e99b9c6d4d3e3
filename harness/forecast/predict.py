"""A forecast of one run's loss: a point, an interval, a verdict, and where each came from.

Point: the mean over members (see `ensemble`) of the predicted ln L.

Interval: four independent sources of error in ln L, combined in quadrature on either side of the point
(the first is not symmetric); z is the normal quantile of the level.

1. fit: quantiles of the bootstrapped point (members resampled together);
2. noise: z times the noise of a single run: seeds where at least three repeats exist, else the robust
   residual of the plain law;
3. extrapolation: z times growth times ln(C / C_max). The growth is the sweep's own backtest error per
   unit of ln(ratio) (a median over its cases), shrunk towards the public record of such fits; one
   origin weighs as much as the record;
4. spread: 1.65 times the standard deviation of the predictions of the members, of least squares and of
   the other convention of N where it is given (1.65 times covered 95 % of the 59 public cases of the
   prototype).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from harness.errors import WrongInput
from harness.forecast.backtest import Backtest, rolling_origin
from harness.forecast.config import ForecastConfig
from harness.forecast.ensemble import Ensemble, fit_ensemble, member_configs
from harness.forecast.gate import Verdict, judge
from harness.laws.bootstrap import resample
from harness.laws.config import LawConfig, LossFunction
from harness.laws.fit import Fit, fit_law
from harness.laws.observations import Observations
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN

PUBLIC_GROWTH = 0.031 / 1.645 / math.log(8)
"""Log error per unit of ln(ratio): averaged fits of this kind have a 90th percentile of the absolute error
of 3.1 % at 8x over 59 public cases in a prototype (the plain law: 5.7 %).
The 90th percentile, not the median of .6 %: the errors have heavy tails and the interval is made for them."""

PUBLIC_ORIGINS = 1.0
"""The public record counts as much as this many backtest origins."""

SPREAD_FACTOR = 1.65
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Target:
    """The run to forecast. `params` in the convention of the observations; `flops` by default 6ND.

    `run_id` and the hashes, where given, bind the seal to that run.
    """

    params: float
    tokens: float
    flops: float | None = None
    run_id: str = ""
    corpus_hash: str = ""
    tokenizer_hash: str = ""

    def __post_init__(self) -> None:
        for name in ("params", "tokens", "flops"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise WrongInput(f"target.{name} must be a positive number, not {value}")

    @property
    def budget(self) -> float:
        """Training FLOPs; 6ND where they are not given."""
        return self.flops or FLOPS_PER_PARAM_TOKEN * self.params * self.tokens


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The number before it is judged. Half-widths are in ln L, at the forecast's level."""

    loss: float
    interval: tuple[float, float]
    fit_below: float
    fit_above: float
    noise: float
    extrapolation: float
    spread: float
    members: dict[str, float]
    ratio: float

    @property
    def half_width(self) -> float:
        """Of the whole interval, in ln L."""
        return math.log(self.interval[1] / self.interval[0]) / 2

    def components(self) -> dict[str, float]:
        names = ("fit_below", "fit_above", "noise", "extrapolation", "spread")
        return {name: getattr(self, name) for name in names}


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
    backtest: Backtest
    config: ForecastConfig

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
            "law": self.fit.law,
            "fit": self.fit.to_json(),
            "backtest": self.backtest.to_json(),
            "conventions": self.fit.conventions,
            "config": config_json(self.config),
            "data_hash": self.fit.data_hash,
        }


def config_json(config: ForecastConfig) -> dict[str, Any]:
    return {**vars(config), "params": config.params.value, "resampling": config.resampling.value}


def predict(
    observations: Observations,
    target: Target,
    config: ForecastConfig,
    other: tuple[Observations, Target] | None = None,
) -> Forecast:
    """Forecast the loss of `target` from a sweep. Deterministic for a given seed.

    `other` is the same sweep and target under the other convention of N; it widens the interval by how
    much the choice matters. Raises CannotAnswer when there are too few rows to fit.
    """
    refuse_other_data(observations, target)
    configs = member_configs(config.delta)
    fit = fit_law(observations, configs[0], config.level)
    ensemble = fit_ensemble(observations, configs)
    backtest = rolling_origin(observations, configs)
    prediction = predict_point(observations, target, config, fit, ensemble, backtest, other)
    verdict, reasons = judge(observations, target, fit, prediction, backtest)
    refused = verdict is Verdict.refused
    return Forecast(
        target=target,
        verdict=verdict,
        reasons=reasons,
        loss=None if refused else prediction.loss,
        interval=None if refused else prediction.interval,
        prediction=prediction,
        fit=fit,
        backtest=backtest,
        config=config,
    )


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


def predict_point(
    observations: Observations,
    target: Target,
    config: ForecastConfig,
    fit: Fit,
    ensemble: Ensemble,
    backtest: Backtest,
    other: tuple[Observations, Target] | None,
) -> Prediction:
    params, tokens = np.array([target.params]), np.array([target.tokens])
    by_member = ensemble.member_log_loss(params, tokens)[:, 0]
    point = float(by_member.mean())
    z = NormalDist().inv_cdf(0.5 + config.level / 2)
    ratio = target.budget / float(observations.flops.max())
    low, high = fit_quantiles(target, config, ensemble)
    noise = run_noise(fit)
    extrapolation = z * growth(backtest, noise) * max(math.log(ratio), 0.0)
    alternatives = alternative_log_losses(observations, target, config.delta, other)
    spread = SPREAD_FACTOR * float(np.std([*by_member, *alternatives.values()], ddof=1))
    below, above = max(point - low, 0.0), max(high - point, 0.0)
    rest = (z * noise, extrapolation, spread)
    labels = [c.label for c in ensemble.configs]
    members = {**dict(zip(labels, by_member.tolist(), strict=True)), **alternatives}
    return Prediction(
        loss=math.exp(point),
        interval=(math.exp(point - math.hypot(below, *rest)), math.exp(point + math.hypot(above, *rest))),
        fit_below=below,
        fit_above=above,
        noise=rest[0],
        extrapolation=extrapolation,
        spread=spread,
        members={name: math.exp(value) for name, value in members.items()},
        ratio=ratio,
    )


def fit_quantiles(target: Target, config: ForecastConfig, ensemble: Ensemble) -> tuple[float, float]:
    """Quantiles of the mean of the members' bootstrapped ln L; each resample is shared by the members."""
    at = {"params": target.params, "tokens": target.tokens}
    draws = [
        np.log(resample(solution, config.bootstraps, config.resampling, config.seed).losses(at)[:, 0])
        for solution in ensemble.solutions
    ]
    tail = (1 - config.level) / 2
    low, high = np.quantile(np.mean(draws, axis=0), [tail, 1 - tail])
    return float(low), float(high)


def run_noise(fit: Fit) -> float:
    """Standard deviation of one run's ln L: of seeds when measured well enough, else of the residuals."""
    noise = fit.seed_noise
    return noise.std if noise and noise.degrees_of_freedom >= REPEATS else fit.residual_scale


def growth(backtest: Backtest, noise: float) -> float:
    """The backtest's error growth shrunk towards the public record, by weights of variance."""
    own = backtest.growth(noise)
    if own is None:
        return PUBLIC_GROWTH
    total = PUBLIC_ORIGINS * PUBLIC_GROWTH**2 + backtest.origins * own**2
    return math.sqrt(total / (PUBLIC_ORIGINS + backtest.origins))


def alternative_log_losses(
    observations: Observations,
    target: Target,
    delta: float,
    other: tuple[Observations, Target] | None,
) -> dict[str, float]:
    """Plain fits a reasonable analyst might have made instead: least squares, the other N."""
    asked: list[tuple[str, Observations, Target, LawConfig]] = [
        ("chinchilla, least squares", observations, target, LawConfig(loss=LossFunction.least_squares))
    ]
    if other is not None:
        label = f"chinchilla, huber {delta:g}, N {other[0].params_kind.value}"
        asked.append((label, *other, LawConfig(delta=delta)))
    return {name: log_loss_at(rows, aim, config) for name, rows, aim, config in asked}


def log_loss_at(observations: Observations, target: Target, config: LawConfig) -> float:
    configs: Sequence[LawConfig] = (config,)
    at = np.array([target.params]), np.array([target.tokens])
    return float(fit_ensemble(observations, configs).log_loss(*at)[0])
