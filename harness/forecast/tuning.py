"""Whether the runs under a forecast were tuned, where the table holds the trials that say so, and whether
runs of one cell are one thing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.forecast.ensemble import NEAR
from harness.laws.checks import Check, grade
from harness.laws.observations import Observations
from harness.laws.responses.rungs import Edge, Rung, rungs
from harness.laws.responses.trials import trials_of
from harness.laws.surfaces import Floats

NAMES = {"lr": "learning rate", "batch_tokens": "batch"}
SHOWN = 3
MIXED = 0.02
"""In log loss between the runs of one cell: no seeds of public sweeps that follow a law lie so far apart."""


def check_tuning(observations: Observations) -> list[Check]:
    """Rungs (params, tokens) whose best learning rate or batch lies at an end of what was tried there: their
    losses are above the tuned frontier by an amount that the sweep does not show.

    One weak or passed check a setting; none where no rung tried several values of it. The value is the
    largest share of the loss at stake. The trials are those before the best of each cell was chosen.
    """
    trials = trials_of(observations)
    if trials is None:
        return []
    found = rungs(trials)
    return [check for name in NAMES for check in check_setting(name, found)]


def check_setting(name: str, found: Sequence[Rung]) -> list[Check]:
    tried = [(rung, tuned) for rung in found if (tuned := getattr(rung, name)) is not None]
    if not tried:
        return []
    edges = [(rung, tuned.edge) for rung, tuned in tried if tuned.edge is not Edge.inside]
    worst = max((rung.edge_cost for rung, _ in edges), default=0.0)
    places = [f"{rung.params:.4g} x {rung.tokens:.4g} (the {edge.value})" for rung, edge in edges]
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    reason = (
        f"the best {NAMES[name]} lies at an end of the grid on {len(edges)} of {len(tried)} rungs (params "
        f"x tokens {', '.join(places[:SHOWN])}{more}); the loss may lie about {worst:.2%} above its lowest"
    )
    return [Check(f"{name} at an edge", grade(False, bool(edges)), worst, 0.0, reason)]


def check_repeats(observations: Observations) -> list[Check]:
    """Runs of equal params, tokens and unique tokens that lie further apart than seeds do: a law would go
    through the middle of settings, corpora or groups. Failed where so far that no law is fitted to all."""
    unique = observations.unique_tokens
    columns = [observations.params, observations.tokens, *([] if unique is None else [unique])]
    cells: dict[tuple[float, ...], list[int]] = {}
    for i, place in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        cells.setdefault(place, []).append(i)
    logs = np.log(observations.loss)
    spans: Floats = np.array([np.ptp(logs[rows]) for rows in cells.values() if len(rows) > 1])
    if not len(spans):
        return []
    usual = float(np.median(spans))
    reason = (
        f"runs of equal params and tokens lie {usual:.1%} apart in loss (the median of {len(spans)} cells; "
        f"the limit is {MIXED:.0%}): learning rates, corpora or groups are mixed; keep the best of each cell "
        "with best_of=cell, or choose with where="
    )
    return [Check("repeats", grade(usual > NEAR, usual > MIXED), usual, MIXED, reason)]
