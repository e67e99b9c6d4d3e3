"""A bet on more tokens than there are: what its passes over the same data are worth.

The laws of a forecast count every token as new. A target that repeats its data is therefore asked of them at
the parameters and new tokens it is worth under the data-constrained law of Muennighoff et al.
(arXiv:2305.16264). On their runs above 8 times the compute fitted, 4 to 20 passes, every token counted as new
says 4.8 % too little (the median of 21); asked so, .5 % too much. Beyond 20 passes it misses by 5 %.

The constants are those of the runs where they determine them, else the published ones; but runs that
themselves repeat their data have worn tokens in their law already, and then every token counts as new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from harness.forecast.engine import Engine, Target
from harness.laws.checks import Check, Grade, grade
from harness.laws.config import LawConfig, LawName
from harness.laws.fit import FitStatus, fit_law
from harness.laws.forms.repetition import worth
from harness.laws.observations import Observations

PUBLISHED = {"R_D*": 15.387756, "R_N*": 5.309743}
"""arXiv:2305.16264, on C4. Their own runs determine the first within a factor of five only."""

NEW_EPOCHS = 4.0
"""Up to here tokens seen again are worth nearly as much as new ones (the same)."""

ROUNDING = 1.01
"""Runs end on whole steps, and the last window of a corpus is left out."""

FEWEST_REPEATING = 8
"""Runs that repeat their data, to fit two constants of repetition to them."""


class Constants(Enum):
    fitted = "of these runs"
    published = "as published, which these runs do not determine"
    none = "counted as new, since these runs repeat their data too and do not determine what a pass is worth"
    line = "counted as new, since runs on one line of (N, D) do not say what a pass is worth"


COUNTED_AS_NEW = (Constants.none, Constants.line)

Law = tuple[Mapping[str, float], Constants]
"""Parameters of the data-constrained law, and where they are from."""


@dataclass(frozen=True)
class Repetition:
    """`params_worth` and `tokens_worth` are what the laws are asked at; `constants` says where those of
    repetition are from."""

    unique_tokens: float
    epochs: float
    params_worth: float
    tokens_worth: float
    constants: Constants

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "constants": self.constants.value}

    def asked(self, target: Target) -> Target:
        """The target without repetition; its FLOPs stay what they are."""
        return replace(target, params=self.params_worth, tokens=self.tokens_worth, flops=target.budget)


def constants(engine: Engine) -> Law:
    if engine.ladder is not None:
        return {}, Constants.line
    epochs = engine.observations.epochs
    repeating = 0 if epochs is None else int((epochs > ROUNDING).sum())
    if repeating >= FEWEST_REPEATING:
        fit = fit_law(engine.observations, LawConfig(name=LawName.repetition, delta=engine.config.delta))
        if fit.status is FitStatus.identified:
            return fit.params, Constants.fitted
    return {**engine.fit.params, **PUBLISHED}, Constants.none if repeating else Constants.published


def repetition(target: Target, unique_tokens: float | None, law: Law) -> Repetition | None:
    """None where the target sees no token twice, or its unique tokens are not known."""
    if unique_tokens is None or target.tokens <= ROUNDING * unique_tokens:
        return None
    params, known = law
    epochs = target.tokens / unique_tokens
    if known in COUNTED_AS_NEW:
        return Repetition(unique_tokens, epochs, target.params, target.tokens, known)
    n, d = worth(params, np.array([target.params]), np.array([target.tokens]), np.array([unique_tokens]))
    return Repetition(unique_tokens, epochs, float(n[0]), float(d[0]), known)


def check_repetition(observations: Observations, found: Repetition | None, known: bool) -> list[Check]:
    """A bet that repeats its data is weak. `known` says whether the target's unique tokens are."""
    if found is None:
        epochs = observations.epochs
        most = 1.0 if epochs is None else float(epochs.max())
        reason = (
            f"runs pass over their data up to {most:.3g} times, and how often the bet would is not known: "
            "every token of it is counted as new; give unique_tokens="
        )
        unsaid = not known and most > ROUNDING
        return [Check("unique tokens", grade(False, unsaid), most, ROUNDING, reason)]
    worth = (
        f"forecast as {found.params_worth:.3g} parameters on {found.tokens_worth:.3g} new ones, by constants "
        if found.constants not in COUNTED_AS_NEW
        else ""
    )
    reason = (
        f"the target passes {found.epochs:.3g} times over {found.unique_tokens:.3g} unique tokens: it is "
        f"{worth}{found.constants.value} (arXiv:2305.16264)"
    )
    return [Check("repetition", Grade.weak, found.epochs, 1.0, reason)]
