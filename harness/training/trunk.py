"""What runs of several horizons have in common: the trunk that their cooldowns branch off. No torch.

Until its cooldown a run of schedule=wsd does not know how long it will be (Hagele et al. 2024,
arXiv:2405.18392): runs that differ in their horizon alone take the same steps up to there, and those need
to be computed once. A run of schedule=constant is trunk to its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.runs import content_hash
from harness.training.cell import Cell, science
from harness.training.schedule import trunk_steps, warmup_steps


@dataclass(frozen=True)
class Trunk:
    """Runs of one `key` are equal to the bit for as many `steps` as the shorter trunk has."""

    key: str
    steps: int


def trunk_of(cell: Cell) -> Trunk | None:
    """None for a run whose first steps depend on its horizon: by its schedule, or because its warm-up is a
    fraction of the run."""
    config, horizon = cell.config, cell.horizon
    steps = trunk_steps(config.schedule, horizon.steps)
    if not steps or config.schedule.warmup_tokens is None or not config.saving.share_trunk:
        return None
    warmup = warmup_steps(config.schedule, horizon.steps, horizon.batch_tokens)
    return Trunk(content_hash({**but_for_horizon(cell), "warmup_steps": warmup}), steps)


def family_of(cell: Cell) -> str:
    """Equal for runs that would share a trunk if they warmed up in equally many steps; empty if it never
    could."""
    if not longest_trunk(cell) or not cell.config.saving.share_trunk:
        return ""
    return content_hash(but_for_horizon(cell))


def longest_trunk(cell: Cell) -> int:
    """The tokens before the cooldown."""
    return trunk_steps(cell.config.schedule, cell.horizon.steps) * cell.horizon.batch_tokens


def but_for_horizon(cell: Cell) -> dict[str, Any]:
    """What bears on the steps of a run before its cooldown, but for its warm-up."""
    content = science(cell.frozen)
    config = {key: value for key, value in content["config"].items() if key not in ("horizon", "schedule")}
    horizon = {key: value for key, value in content["horizon"].items() if key != "steps"}
    return {**content, "config": config, "horizon": horizon}
