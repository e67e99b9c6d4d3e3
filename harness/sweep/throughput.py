"""How many cells at once: with which number this machine takes most tokens a second, measured before a sweep.

Only their number is chosen. The cores of a slot stay what they are, since a cell's threads bear on how its
sums round: whatever is found here, the runs are the same to the bit.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import WrongInput
from harness.runs import content_hash, read_json, write_json
from harness.sweep.estimate import speed_key
from harness.sweep.plan import PlanLine, create_run
from harness.training.contest import together
from harness.training.packing import Arrangement, Throughput, crew, throughputs

FOLDER = ".slots"
REPEATS = 3
TURN_SECONDS = 2.0
FIRST_STEPS = 20
WORTH = 10.0
"""A sweep is measured for that takes at least so many times as long as measuring."""


@dataclass(frozen=True)
class SlotChoice:
    """What was measured of one shape on one machine: `load` is the machine's just before (processes that want
    a core), `seconds` what measuring took."""

    model: str
    measured: tuple[Throughput, ...]
    load: float
    seconds: float
    measured_at: str

    @property
    def best(self) -> Throughput:
        return max(self.measured, key=lambda one: one.tokens_per_second)

    @property
    def slots(self) -> int:
        return self.best.arrangement.slots

    @property
    def ratio(self) -> float:
        """How many times the tokens of one cell at a time."""
        alone = min(self.measured, key=lambda one: one.arrangement.slots)
        return self.best.tokens_per_second / alone.tokens_per_second


@dataclass(frozen=True)
class Unmeasured:
    """`slots` all the same, and why none were compared."""

    slots: int
    reason: str


def candidates(cells: int, width: int, cores: Sequence[int]) -> list[Arrangement]:
    """As many cells as there are groups of `width` cores, half as many, and so on to one; never more than
    there are cells."""
    slots = max(1, min(cells, len(cores) // width))
    found = []
    while slots:
        found.append(Arrangement(slots, width))
        slots //= 2
    return found


def choose_slots(
    runs_dir: Path, lines: Sequence[PlanLine], width: int, cores: Sequence[int], machine: dict[str, Any]
) -> SlotChoice | Unmeasured:
    """For `lines`, the cells that are left, of their dearest: as measured before, or now. A measurement holds
    for one `machine`, its versions included. Raises CannotAnswer when that cell cannot be trained."""
    ways = candidates(len(lines), width, cores)
    if len(ways) == 1:
        return Unmeasured(ways[0].slots, "there is no other number to compare")
    line = max(lines, key=lambda line: line.cell.flops)
    if line.frozen is None:
        return Unmeasured(ways[0].slots, "a plan of the first version does not hold its cells' configs")
    asked = {"machine": machine, "cores": list(cores), "arrangements": [asdict(way) for way in ways]}
    path = runs_dir / FOLDER / f"{content_hash([speed_key(line.frozen), asked])[:16]}.json"
    if (before := kept(path)) is not None:
        return before
    found = measure(line, [each.cell.flops for each in lines], ways, cores)
    if isinstance(found, SlotChoice):
        write_json(path, {**asdict(found), "asked": asked})
    return found


def measure(
    line: PlanLine, flops: Sequence[float], ways: Sequence[Arrangement], cores: Sequence[int]
) -> SlotChoice | Unmeasured:
    began, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, crew(create_run(Path(folder), line).path, cores) as team:
        alone = team.of(Arrangement(1, ways[0].width))
        together(alone, FIRST_STEPS)  # a loop that fetches ahead is timed over what it was given before
        step_seconds = together(alone, FIRST_STEPS) / FIRST_STEPS
        started = time.monotonic() - began
        sweep_seconds = step_seconds * line.cell.steps * sum(flops) / line.cell.flops / ways[0].slots
        needed = started + len(ways) * REPEATS * TURN_SECONDS
        if sweep_seconds < WORTH * needed:
            reason = f"training takes about {sweep_seconds:.0f} s, measuring {needed:.0f} s"
            return Unmeasured(ways[0].slots, reason)
        steps = max(1, round(TURN_SECONDS / step_seconds))
        found = throughputs(team, ways, line.cell.tokens // line.cell.steps, steps, REPEATS)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    spent = round(time.monotonic() - began, 1)
    return SlotChoice(line.cell.model, tuple(found), load, spent, at)


def kept(path: Path) -> SlotChoice | None:
    """What was measured before; None when nothing was, or the file is damaged."""
    try:
        value = read_json(path)
        turns = [(Arrangement(**one["arrangement"]), tuple(one["rates"])) for one in value.pop("measured")]
        del value["asked"]
        return SlotChoice(**value, measured=tuple(Throughput(*turn) for turn in turns))
    except (WrongInput, AttributeError, KeyError, TypeError):
        return None
