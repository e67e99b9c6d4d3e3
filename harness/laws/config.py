"""What a fit may be told: the law, the convention of N, the loss function, how uncertainty is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum


class LawName(Enum):
    chinchilla = "chinchilla"
    skaling = "skaling"
    chinchilla_tied = "chinchilla_tied"
    kaplan = "kaplan"
    farseer = "farseer"
    overtrain = "overtrain"
    repetition = "repetition"
    frontier = "frontier"
    bnsl = "bnsl"
    bnsl_two = "bnsl_two"
    ces = "ces"
    ces_square_root = "ces_square_root"
    ces_fourth_root = "ces_fourth_root"
    downstream = "downstream"
    downstream_error = "downstream_error"
    coverage = "coverage"
    reward = "reward"
    learning_rate = "learning_rate"
    batch_size = "batch_size"
    progress = "progress"
    tissue = "tissue"
    multi_power = "multi_power"


OTHER_RESPONSES = frozenset(
    {
        *(LawName.downstream, LawName.downstream_error, LawName.coverage, LawName.reward),
        *(LawName.learning_rate, LawName.batch_size, LawName.progress),
        *(LawName.tissue, LawName.multi_power),
    }
)
"""Laws of `laws.responses`, which read columns of their own. Here, so that asking costs no import."""


OF_SCHEDULES = frozenset({LawName.tissue, LawName.multi_power})
"""Of the responses, laws of loss curves, which read whole runs and choose among them."""


OF_RUNGS = frozenset({LawName.learning_rate, LawName.batch_size})
"""Of the responses, laws through the best settings of every rung of a sweep."""


WITH_PRIOR = (
    *(LawName.chinchilla, LawName.skaling),
    *(LawName.ces, LawName.ces_square_root, LawName.ces_fourth_root),
)
"""Laws that have a weak prior on their exponents."""


OF_COMPUTE = frozenset({LawName.frontier, LawName.bnsl, LawName.bnsl_two})
"""Laws that read FLOPs and no N or D."""


class ParamsKind(Enum):
    """Which parameters N counts. The exponents depend on it (Pearce & Song 2406.12907).

    `body_and_head` leaves out only the input embedding: what a token is multiplied with (Porian et al.
    2406.19146). With tied matrices it equals the total.
    """

    non_embedding = "non_embedding"
    total = "total"
    body_and_head = "body_and_head"


FlopsKind = Enum("FlopsKind", {"auto": "auto", "as_given": "as given", "6nd": "6ND (approximation)"})
"""Which C budgets are given in and allocated under. `as_given`: the runs' own FLOPs, interpolated in N;
`6nd`: C = 6 N D; `auto`: as given where the runs allow it, else 6ND. A call, because `6nd` on a command
line is no name in Python."""


class LossUnit(Enum):
    nats_per_token = "nats/token"
    bits_per_byte = "bits/byte"


class LossFunction(Enum):
    """Of the residual in ln L; the last two take least squares of L itself, as Gadre et al. 2403.08540 do,
    or of ln(1 + L), as Caballero et al. 2210.14891 do."""

    huber = "huber"
    least_squares = "least_squares"
    least_squares_loss = "least_squares_loss"
    least_squares_log1p = "least_squares_log1p"


class Resampling(Enum):
    """What a bootstrap replicate redraws.

    `cases` redraws rows and `sizes` whole model sizes, for runs that were found; `residuals` keeps the
    cells and redraws their residuals, for a grid that was designed. `runs` redraws whole runs, where
    several rows belong to one.
    """

    cases = "cases"
    sizes = "sizes"
    residuals = "residuals"
    runs = "runs"


class IntervalMethod(Enum):
    """Percentiles of resampled fits, or values whose best fit the rows do not reject."""

    bootstrap = "bootstrap"
    profile = "profile"


SQUARES = {
    LossFunction.least_squares: "least squares",
    LossFunction.least_squares_loss: "least squares of L",
    LossFunction.least_squares_log1p: "least squares of ln(1 + L)",
}


@dataclass(kw_only=True)
class LawConfig:
    """One law and how it is fitted.

    `delta` is where the Huber loss turns from square to linear, in log loss: 1e-3 is that of Hoffmann et
    al. 2203.15556 and Besiroglu et al. 2404.10102. `weak_prior` pulls the exponents towards those of
    published tables (constants beside each form). `skip` is the compute below which a reward law
    leaves rows out.
    """

    name: LawName = LawName.chinchilla
    loss: LossFunction = LossFunction.huber
    delta: float = 1e-3
    weak_prior: bool = False
    skip: float = 0.0

    def __post_init__(self) -> None:
        if not (self.delta > 0 and math.isfinite(self.delta)):
            raise ValueError(f"law.delta must be a positive number, not {self.delta}")
        if self.skip and not (self.name is LawName.reward and self.skip > 0):
            raise ValueError(f"law.skip is a positive compute, for law=reward alone, not {self.skip}")
        if self.weak_prior and self.name not in WITH_PRIOR:
            known = ", ".join(name.value for name in WITH_PRIOR)
            raise ValueError(f"law.weak_prior exists for {known}, not for {self.name.value}")

    @property
    def effective_delta(self) -> float:
        """The Huber delta; infinite for least squares."""
        return self.delta if self.loss is LossFunction.huber else math.inf

    @property
    def label(self) -> str:
        """Such as 'chinchilla, huber 0.001, weak prior'."""
        return f"{self.name.value}, {self.loss_label}" + (", weak prior" if self.weak_prior else "")

    @property
    def loss_label(self) -> str:
        """Such as 'huber 0.001' or 'least squares of L'."""
        return f"huber {self.delta:g}" if self.loss is LossFunction.huber else SQUARES[self.loss]


FEWEST_BOOTSTRAPS = 20
"""An interval from fewer resamples is narrower than the truth: one resample would give it no width."""


@dataclass(kw_only=True)
class FitConfig:
    """A fit with its intervals. `level` is the coverage of every interval; `bootstraps=0` draws none.

    `unit` is that of the loss; not given, it is the runs' own (nats per token in a run directory).
    """

    law: LawConfig = field(default_factory=LawConfig)
    params: ParamsKind = ParamsKind.total
    flops: FlopsKind = FlopsKind.auto
    unit: LossUnit | None = None
    intervals: IntervalMethod = IntervalMethod.bootstrap
    bootstraps: int = 1000
    resampling: Resampling = Resampling.cases
    seed: int = 0
    level: float = 0.9

    def __post_init__(self) -> None:
        if self.bootstraps != 0 and self.bootstraps < FEWEST_BOOTSTRAPS:
            raise ValueError(
                f"fit.bootstraps must be at least {FEWEST_BOOTSTRAPS}, or 0 for no intervals, "
                f"not {self.bootstraps}"
            )
        if not 0 < self.level < 1:
            raise ValueError(f"fit.level must lie between 0 and 1, not {self.level}")
