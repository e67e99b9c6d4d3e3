"""The fits whose average is the forecast, and how they are asked for one point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.laws.config import LawConfig, LawName
from harness.laws.fit import solve
from harness.laws.forms.catalogue import FORMS
from harness.laws.observations import Observations
from harness.laws.solve import Solution
from harness.laws.surfaces import Floats


def member_configs(delta: float) -> tuple[LawConfig, ...]:
    """The plain law first; then the plain law and skaling, each with a weak prior on its exponents.

    Averaging such fits is what a prototype found over 59 public 8x cases (median error
    .6 % against 2.7 % of the plain law); here they weigh the same.
    """
    return (
        LawConfig(delta=delta),
        LawConfig(delta=delta, weak_prior=True),
        LawConfig(name=LawName.skaling, delta=delta, weak_prior=True),
    )


def usable(configs: Sequence[LawConfig], rows: int) -> tuple[LawConfig, ...]:
    """The members that `rows` rows can determine."""
    return tuple(c for c in configs if rows > len(FORMS[c.name.value].parameters))


@dataclass(frozen=True)
class Ensemble:
    """Member solutions on one set of rows."""

    configs: tuple[LawConfig, ...]
    solutions: tuple[Solution, ...]

    def member_log_loss(self, params: Floats, tokens: Floats) -> Floats:
        """ln L of every member at every point, [members, points]."""
        rows = {"params": params, "tokens": tokens}
        return np.log(np.concatenate([s.form.losses(s.values[None], rows) for s in self.solutions]))

    def log_loss(self, params: Floats, tokens: Floats) -> Floats:
        """The mean over members, [points]."""
        return np.asarray(self.member_log_loss(params, tokens).mean(axis=0))


def fit_ensemble(observations: Observations, configs: Sequence[LawConfig]) -> Ensemble:
    """Raises CannotAnswer when there are fewer rows than the plain law needs."""
    able = usable(configs, len(observations)) or tuple(configs[:1])
    return Ensemble(configs=able, solutions=tuple(solve(observations, config) for config in able))
