"""What is launched as one: the cells of one trunk, one after another, each starting where it branches off.

Cells of equal `PlannedCell.trunk` train alike for their first `trunk_tokens` tokens, and each leaves its
state there. In order of horizon, the next one then only trains the tokens that the last one has not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from harness.runs import TRUNK_STATES, TRUNKS
from harness.sweep.plan import PlannedCell

Unit = tuple[PlannedCell, ...]


def units(cells: Iterable[PlannedCell]) -> list[Unit]:
    """The cells grouped by trunk, the shortest of a trunk first; the unit with the most FLOPs first.

    A cell that shares its trunk with no other is a unit of its own.
    """
    groups: dict[str, list[PlannedCell]] = defaultdict(list)
    for cell in cells:
        groups[cell.trunk or cell.run_id].append(cell)
    found = [
        tuple(sorted(group, key=lambda cell: (cell.trunk_tokens, cell.tokens))) for group in groups.values()
    ]
    return sorted(found, key=lambda unit: -sum(new_flops(unit)))


def new_flops(unit: Sequence[PlannedCell]) -> list[float]:
    """The FLOPs that each cell adds when the cells of one unit are trained in this order."""
    shared = shared_tokens([unit])
    return [cell.flops * (1 - shared[cell.run_id] / cell.tokens) for cell in unit]


def shared_tokens(
    units: Iterable[Sequence[PlannedCell]], ready: Mapping[str, Collection[int]] | None = None
) -> dict[str, int]:
    """The tokens of each cell, by run id, that another cell of its unit, trained before it, has trained for
    it; or that `ready` has already, the lengths in tokens of the states that lie there of each trunk."""
    found = {}
    for unit in units:
        lengths = list((ready or {}).get(unit[0].trunk, ()))
        for cell in unit:
            usable = (n for n in lengths if cell.trunk and n <= cell.trunk_tokens and n < cell.tokens)
            found[cell.run_id] = max(usable, default=0)
            lengths.append(cell.trunk_tokens)
    return found


def saved_flops(cells: Iterable[PlannedCell], shared: Mapping[str, int]) -> float:
    """What the cells need not compute, given the tokens that each takes over."""
    return sum(cell.flops * shared[cell.run_id] / cell.tokens for cell in cells)


def ready_trunks(root: Path, cells: Iterable[PlannedCell]) -> dict[str, list[int]]:
    """The lengths in tokens of the trunk states that lie in a sweep's folder, for those of these cells."""
    batch_tokens = {cell.trunk: cell.tokens // cell.steps for cell in cells if cell.trunk}
    return {
        trunk: [
            int(path.stem.removeprefix("step-")) * batch
            for path in (root / TRUNKS / trunk).glob(TRUNK_STATES)
        ]
        for trunk, batch in batch_tokens.items()
    }
