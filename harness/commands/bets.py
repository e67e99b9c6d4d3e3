"""What the verbs of forecasting share: the rows of a bet, and a refusal that programs can read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from harness.commands.observe import observe
from harness.commands.root import Experiment, Format
from harness.errors import CannotAnswer
from harness.forecast.gate import Verdict
from harness.laws.columns import SizeUnknown
from harness.laws.config import ParamsKind
from harness.laws.observations import Observations
from harness.report.terminal import print_json


def observe_bet(settings: Experiment, params: ParamsKind) -> Observations:
    """The rows a bet is made from. Raises CannotAnswer when they do not know N and D apart."""
    try:
        return observe(settings, params, settings.fit.unit)
    except SizeUnknown as error:
        raise CannotAnswer(f"no law of N and D can be bet on: {error}") from error


@contextlib.contextmanager
def saying_refused(settings: Experiment, beside: Mapping[str, Any] | None = None) -> Iterator[None]:
    """What cannot be answered is a refusal: with format=json it is said on stdout as well, with `beside`."""
    try:
        yield
    except CannotAnswer as error:
        if settings.format is Format.json:
            print_json({"verdict": Verdict.refused.value, "reasons": [str(error)], **(beside or {})})
        raise
