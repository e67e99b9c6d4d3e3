"""The one engine behind `harness forecast` and `harness backtest`: rows in, points with intervals out.

Point: the mean of the laws' ln L (see `ensemble`), weighted by their errors in the rolling origin at the
bet's own extrapolation ratio (see `rolling`), never by how they fit.

Interval: four independent sources of error in ln L, combined in quadrature; z is the normal quantile of the
level.

1. fit: from the point to the further of the quantiles of the bootstrapped point (laws resampled together):
   the side on which a bootstrap of few rows reaches further is not the side on which the truth lies;
2. noise: z times the noise of a single run: seeds where at least three repeats exist, else the robust
   residual of the plain law on the rows near the best of their budget;
3. extrapolation: z times growth times ln(C / C_max). The growth is the sweep's own rolling error per unit of
   ln(ratio), at the ratio of the bet, of each origin the share that its rows leave to the whole sweep, shrunk
   towards the public record, which counts as four origins;
4. spread: 1.65 times the standard deviation over the laws, and over the other convention of N where it is
   given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from harness.errors import WrongInput
from harness.forecast.config import ForecastConfig
from harness.forecast.ensemble import MEMBERS, Ensemble, fit_ensemble, seen
from harness.forecast.ladder import Ladder, find_ladder
from harness.forecast.rolling import SMALLEST_RATIO, Rolling, rolling_origin
from harness.laws.bootstrap import Replicates, resample
from harness.laws.config import LawConfig
from harness.laws.fit import Fit, fit_observed
from harness.laws.forms.chinchilla import CHINCHILLA
from harness.laws.forms.form import Form
from harness.laws.forms.ladder import LADDER
from harness.laws.observations import Observations
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

PUBLIC_GROWTH = 0.0105 / math.log(8)
"""Log error per unit of ln(ratio), a standard deviation: what the fit, the noise and the spread over laws
leave unsaid at 8x on the public tables."""

PUBLIC_ORIGINS = 4.0
"""The public record counts as much as this many origins of the rolling origin."""

SPREAD_FACTOR = 1.65
WIDEST = 20.0
"""Half-width in log loss; no loss is known worse than to this."""

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


def columns_of(targets: Sequence[Target]) -> dict[str, Floats]:
    return {
        "params": np.array([t.params for t in targets], dtype=float),
        "tokens": np.array([t.tokens for t in targets], dtype=float),
        "flops": np.array([t.budget for t in targets], dtype=float),
    }


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The number before it is judged. Half-widths are in ln L, at the forecast's level. `member_intervals`
    hold each law's own uncertainty of fit and the noise, nothing of the choice among laws."""

    loss: float
    interval: tuple[float, float]
    fit: float
    noise: float
    extrapolation: float
    spread: float
    members: dict[str, float]
    member_intervals: dict[str, tuple[float, float]]
    weights: dict[str, float]
    ratio: float

    @property
    def half_width(self) -> float:
        """Of the whole interval, in ln L."""
        return math.log(self.interval[1] / self.interval[0]) / 2

    def components(self) -> dict[str, float]:
        names = ("fit", "noise", "extrapolation", "spread")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Engine:
    """What one set of rows can say. `fit` is the plain law on all rows, the baseline; `core` is the same on
    the rows that the members see, and what the checks are made on. `ensemble` has equal weights until a
    ratio is asked for. Of rows on one line of (N, D), the `ladder`, all laws are laws of compute."""

    observations: Observations
    config: ForecastConfig
    fit: Fit
    core: Fit
    ensemble: Ensemble
    rolling: Rolling
    replicates: tuple[Replicates, ...]
    ladder: Ladder | None = None

    def ratio(self, target: Target) -> float:
        return target.budget / float(self.observations.flops.max())

    def weighed(self, ratio: float) -> Ensemble:
        """The laws weighted for a bet at `ratio`."""
        ensemble = self.ensemble
        return ensemble.weighted(self.rolling.weights(ensemble.names, max(ratio, SMALLEST_RATIO)))

    def predict(self, targets: Sequence[Target], others: Floats | None = None) -> tuple[Prediction, ...]:
        """At every target, under weights for their median ratio. `others` [k, targets] are ln L of further
        analyses, which widen the spread and leave the point."""
        rows = columns_of(targets)
        ensemble = self.weighed(float(np.exp(np.median(np.log([self.ratio(t) for t in targets])))))
        by_law = ensemble.member_log_loss(rows)
        point = ensemble.weights @ by_law
        draws = np.array([np.log(r.losses(r.form.rows(rows))) for r in self.replicates])
        tails = [(1 - self.config.level) / 2, (1 + self.config.level) / 2]
        low, high = np.nanquantile(np.einsum("m,mkt->kt", ensemble.weights, draws), tails, axis=0)
        law_low, law_high = np.nanquantile(draws, tails, axis=1)
        told = by_law if others is None else np.concatenate([by_law, others])
        spread = np.std(told, axis=0, ddof=min(1, len(told) - 1))  # one law alone has none
        return tuple(
            self.prediction(
                ensemble,
                self.ratio(target),
                float(point[i]),
                (float(low[i]), float(high[i])),
                by_law[:, i],
                (law_low[:, i], law_high[:, i]),
                float(spread[i]),
            )
            for i, target in enumerate(targets)
        )

    def prediction(
        self,
        ensemble: Ensemble,
        ratio: float,
        point: float,
        drawn: tuple[float, float],
        by_law: Floats,
        drawn_by_law: tuple[Floats, Floats],
        spread: float,
    ) -> Prediction:
        z = NormalDist().inv_cdf(0.5 + self.config.level / 2)
        single = run_noise(self.core)
        noise = z * single
        extrapolation = z * growth(self.rolling, ratio, len(self.observations)) * max(math.log(ratio), 0.0)
        fit = max(point - drawn[0], drawn[1] - point, 0.0)
        half = math.hypot(fit, noise, extrapolation, SPREAD_FACTOR * spread)
        return Prediction(
            loss=math.exp(point),
            interval=around(point, half, half),
            fit=fit,
            noise=noise,
            extrapolation=extrapolation,
            spread=SPREAD_FACTOR * spread,
            members={name: math.exp(x) for name, x in zip(ensemble.names, by_law, strict=True)},
            member_intervals={
                name: around(x, math.hypot(max(x - a, 0.0), noise), math.hypot(max(b - x, 0.0), noise))
                for name, x, a, b in zip(ensemble.names, by_law.tolist(), *drawn_by_law, strict=True)
            },
            weights=dict(zip(ensemble.names, ensemble.weights.tolist(), strict=True)),
            ratio=ratio,
        )


def around(point: float, below: float, above: float) -> tuple[float, float]:
    """An interval of the loss; one that knows nothing at all stays finite, for JSON."""
    return math.exp(point - min(below, WIDEST)), math.exp(point + min(above, WIDEST))


def build_engine(
    observations: Observations, config: ForecastConfig, members: Sequence[Form] | None = None
) -> Engine:
    """With `members`, else with the laws of N and D, or of compute where the rows lie on one line.
    Deterministic for a given seed. Raises CannotAnswer when there are too few rows to fit."""
    ladder = find_ladder(observations) if members is None else None
    chosen = members or (MEMBERS if ladder is None else ladder.members)
    plain, law = LawConfig(delta=config.delta), CHINCHILLA if ladder is None else LADDER
    ensemble = fit_ensemble(observations, config.delta, chosen)
    return Engine(
        observations=observations,
        config=config,
        fit=fit_observed(observations, law, plain, config.level),
        core=fit_observed(seen(observations, chosen), law, plain, config.level),
        ensemble=ensemble,
        rolling=rolling_origin(observations, config.delta, chosen),
        replicates=tuple(
            resample(solution, config.bootstraps, config.resampling, config.seed)
            for solution in ensemble.solutions
        ),
        ladder=ladder,
    )


def run_noise(fit: Fit) -> float:
    """Standard deviation of one run's ln L: of seeds when measured well enough, else of the residuals."""
    noise = fit.seed_noise
    return noise.std if noise and noise.degrees_of_freedom >= REPEATS else fit.residual_scale


def growth(rolling: Rolling, ratio: float, rows: int) -> float:
    """What the rolling errors say of a sweep of so many rows, shrunk towards the public record, both as
    logarithms."""
    own, origins = rolling.growth(max(ratio, SMALLEST_RATIO), rows)
    if not origins:
        return PUBLIC_GROWTH
    total = PUBLIC_ORIGINS * math.log(PUBLIC_GROWTH) + origins * math.log(own)
    return math.exp(total / (PUBLIC_ORIGINS + origins))
