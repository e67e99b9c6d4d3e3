"""Whether the runs under a forecast were tuned, where the table holds the trials that say so."""

from __future__ import annotations

from collections.abc import Sequence

from harness.laws.checks import Check, grade
from harness.laws.observations import Observations
from harness.laws.responses.rungs import Edge, Rung, rungs
from harness.laws.responses.trials import trials_of

NAMES = {"lr": "learning rate", "batch_tokens": "batch"}
SHOWN = 3


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
