"""What a forecast may be told."""

from __future__ import annotations

from dataclasses import dataclass

from harness.laws.config import ParamsKind, Resampling


@dataclass(kw_only=True)
class ForecastConfig:
    """`level` is the coverage the interval aims at; `bootstraps` and `resampling` as in a fit.

    A sweep's cells are chosen, so residuals are redrawn by default; `delta` is that of the Huber loss.
    `params` not given is that of the fit.
    """

    params: ParamsKind | None = None
    delta: float = 1e-3
    bootstraps: int = 500
    resampling: Resampling = Resampling.residuals
    seed: int = 0
    level: float = 0.9

    def __post_init__(self) -> None:
        if self.bootstraps < 50:
            raise ValueError(
                f"forecast.bootstraps must be at least 50 for an interval, not {self.bootstraps}"
            )
        if not 0 < self.level < 1:
            raise ValueError(f"forecast.level must lie between 0 and 1, not {self.level}")
        if not self.delta > 0:
            raise ValueError(f"forecast.delta must be positive, not {self.delta}")
