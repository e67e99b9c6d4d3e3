"""A bet on more tokens than there are: what its passes over the same data are worth.

The laws of a forecast count every token as new. A target that repeats its data is therefore asked of them at
the parameters and new tokens it is worth under the data-constrained law of Muennighoff et al.
(arXiv:2305.16264). On their runs above 8 times the compute fitted, 4 to 20 passes, every token counted as new
says 4.8 % too little (the median of 21); asked so, .5 % too much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.forecast.engine import Engine, Target
from harness.laws.config import LawConfig, LawName
from harness.laws.fit import FitStatus, fit_law
from harness.laws.forms.repetition import worth
from harness.laws.identify import Check, grade
from harness.laws.observations import Observations

PUBLISHED = {"R_D*": 15.387756, "R_N*": 5.309743}
"""arXiv:2305.16264, on C4. Their own runs determine the first within a factor of five only."""

NEW_EPOCHS = 4.0
"""Up to here tokens seen again are worth nearly as much as new ones (the same)."""

ROUNDING = 1.01
"""Runs end on whole steps, and the last window of a corpus is left out."""

FEWEST_REPEATING = 8
"""Runs that repeat their data, to fit two constants of repetition to them."""


@dataclass(frozen=True)
class Repetition:
    """`params_worth` and `tokens_worth` are what the laws are asked at; `fitted` says whether the constants
    are those of the runs themselves or the published ones."""

    unique_tokens: float
    epochs: float
    params_worth: float
    tokens_worth: float
    fitted: bool

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def asked(self, target: Target) -> Target:
        """The target without repetition; its FLOPs stay what they are."""
        return replace(target, params=self.params_worth, tokens=self.tokens_worth, flops=target.budget)


def constants(engine: Engine) -> tuple[Mapping[str, float], bool]:
    """Of the data-constrained law, and whether the runs determine them."""
    epochs = engine.observations.epochs
    if epochs is not None and int((epochs > ROUNDING).sum()) >= FEWEST_REPEATING:
        fit = fit_law(engine.observations, LawConfig(name=LawName.repetition, delta=engine.config.delta))
        if fit.status is FitStatus.identified:
            return fit.params, True
    return {**engine.fit.params, **PUBLISHED}, False


def repetition(
    target: Target, unique_tokens: float | None, law: tuple[Mapping[str, float], bool]
) -> Repetition | None:
    """None where the target sees no token twice, or its unique tokens are not known."""
    if unique_tokens is None or target.tokens <= ROUNDING * unique_tokens:
        return None
    params, fitted = law
    n, d = worth(params, np.array([target.params]), np.array([target.tokens]), np.array([unique_tokens]))
    return Repetition(unique_tokens, target.tokens / unique_tokens, float(n[0]), float(d[0]), fitted)


def check_repetition(observations: Observations, found: Repetition | None, known: bool) -> list[Check]:
    """A bet that repeats its data is weak, and beyond a few passes refused where the runs do not determine
    what one is worth. `known` says whether the target's unique tokens are."""
    if found is None:
        epochs = observations.epochs
        most = 1.0 if epochs is None else float(epochs.max())
        reason = (
            f"runs pass over their data up to {most:.3g} times, and how often the bet would is not known: "
            "every token of it is counted as new; give unique_tokens="
        )
        unsaid = not known and most > ROUNDING
        return [Check("unique tokens", grade(False, unsaid), most, ROUNDING, reason)]
    whose = "of these runs" if found.fitted else "as published, which these runs do not determine"
    reason = (
        f"the target passes {found.epochs:.3g} times over {found.unique_tokens:.3g} unique tokens: it is "
        f"forecast as {found.params_worth:.3g} parameters on {found.tokens_worth:.3g} new ones, by the "
        f"constants {whose} (arXiv:2305.16264)"
    )
    failed = found.epochs > NEW_EPOCHS and not found.fitted
    return [Check("repetition", grade(failed, True), found.epochs, NEW_EPOCHS, reason)]
