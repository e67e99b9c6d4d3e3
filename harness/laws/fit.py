"""One law fitted to one set of observations, with its conventions, its checks and its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from harness.laws.config import LawConfig, LawName
from harness.laws.conventions import SIX_ND, TokenCost, allocate
from harness.laws.identify import Check, Grade, identify
from harness.laws.observations import FLOPS_6ND, Observations
from harness.laws.profile import Profile, profile_floor
from harness.laws.solve import Solution, solve
from harness.laws.surfaces import build_law, exponent_a, to_params
from harness.runs import Skipped


class FitStatus(Enum):
    identified = "identified"
    not_identified = "not_identified"


@dataclass(frozen=True)
class Optimum:
    """The compute-optimal allocation of `flops`, counted as `flops_convention` says, and its loss."""

    flops: float
    params: float
    tokens: float
    loss: float
    flops_convention: str = FLOPS_6ND

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "tokens_per_param": self.tokens / self.params}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """`params` are in full precision, in the units of `conventions`; `objective` is the summed loss of
    the residuals of ln L; `residual_rms` and `residual_scale` (robust) are in log loss."""

    law: LawName
    config: LawConfig
    status: FitStatus
    params: dict[str, float]
    objective: float
    n: int
    residual_rms: float
    residual_scale: float
    conventions: dict[str, str]
    dropped: tuple[Skipped, ...]
    data_hash: str
    checks: tuple[Check, ...]
    profile: Profile
    solution: Solution

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the fit is not identified; empty when it is."""
        return tuple(check.reason for check in self.checks if check.grade is Grade.failed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is weakly determined although the fit is usable."""
        return tuple(check.reason for check in self.checks if check.grade is Grade.weak)

    @property
    def exponent_a(self) -> float:
        """a in N* proportional to C^a."""
        return float(exponent_a(self.solution.raw_theta)[0])

    def predict(self, params: float, tokens: float) -> float:
        """The loss at one (N, D), in the unit of the observations."""
        u, v = np.log([params]), np.log([tokens])
        return float(np.exp(build_law(self.law).log_loss(self.solution.raw_theta, u, v)[0, 0]))

    def optimum(self, flops: float, cost: TokenCost = SIX_ND) -> Optimum:
        """The allocation that minimises the loss at `flops`; a token costs what `cost` says."""
        log_n, log_d = allocate(self.solution.law, self.solution.raw_theta, flops, cost)
        n, d = math.exp(log_n[0]), math.exp(log_d[0])
        return Optimum(flops=flops, params=n, tokens=d, loss=self.predict(n, d), flops_convention=cost.label)

    def to_json(self) -> dict[str, Any]:
        """Without intervals; `bootstrap.fit_json` adds them and the optimum."""
        return {
            "law": self.law.value,
            "status": self.status.value,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "params": dict(self.params),
            "objective": self.objective,
            "loss_function": {"name": self.config.loss.value, "delta": finite(self.config.effective_delta)},
            "weak_prior": self.config.weak_prior,
            "n": self.n,
            "residual_rms": self.residual_rms,
            "residual_scale": self.residual_scale,
            "dropped": dropped_json(self.dropped),
            "conventions": dict(self.conventions),
            "exponent_a": finite(self.exponent_a),
            "checks": [check.to_json() for check in self.checks],
            "profile": self.profile.to_json(),
            "data_hash": self.data_hash,
        }


def finite(value: float) -> float | None:
    """None for what JSON cannot say."""
    return value if math.isfinite(value) else None


def dropped_json(dropped: tuple[Skipped, ...]) -> list[dict[str, Any]]:
    """Counted by reason, with the names."""
    names: dict[str, list[str]] = {}
    for item in dropped:
        names.setdefault(item.reason, []).append(item.name)
    return [
        {"reason": reason, "count": len(found), "names": sorted({*found} - {"(filter)"})}
        for reason, found in names.items()
    ]


def fit_law(observations: Observations, config: LawConfig, level: float = 0.9) -> Fit:
    """Fit one law. `level` is that of the profile interval of E.

    A fit that the rows cannot support comes back as `not_identified` with its reasons, not as an error.
    Raises CannotAnswer when there are not more rows than parameters.
    """
    solution = solve(observations, config)
    profile = profile_floor(solution, level)
    checks = identify(solution, profile, observations)
    failed = any(check.grade is Grade.failed for check in checks)
    return Fit(
        law=config.name,
        config=config,
        status=FitStatus.not_identified if failed else FitStatus.identified,
        params=to_params(solution.law, solution.raw_theta[0]),
        objective=solution.objective,
        n=len(observations),
        residual_rms=float(np.sqrt(np.mean(solution.residual**2))),
        residual_scale=solution.scale,
        conventions=observations.conventions,
        dropped=observations.dropped,
        data_hash=observations.data_hash(),
        checks=checks,
        profile=profile,
        solution=solution,
    )
