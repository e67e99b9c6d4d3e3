"""The plan of a sweep: which cells, and what they cost. A plan is written before anything is spent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.errors import CannotAnswer, WrongInput
from harness.runs import write_text

PLAN = "plan.jsonl"


@dataclass(kw_only=True)
class SweepConfig:
    """`axes` are in Hydra's override grammar, e.g. `model=27k,56k`, `seed=range(3)`, `model=glob(*k)`:
    every value of one with every value of the others. `also` lists more such products beside the grid,
    e.g. `[model=27k, seed=1,2]` for repeats of one cell."""

    axes: list[str] = field(default_factory=list)
    also: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class PlannedCell:
    """One line of plan.jsonl."""

    run_id: str
    model: str
    params_non_embedding: int
    params_total: int
    tokens: int
    steps: int
    flops: float
    lr: float
    seed: int
    config_hash: str


def products(sweep: SweepConfig) -> list[list[str]]:
    """The grids of a sweep, each a list of axes. Raises WrongInput when there are none."""
    found = [axes for axes in (sweep.axes, *sweep.also) if axes]
    if not found:
        raise WrongInput("the sweep has no cells: add e.g. 'sweep.axes=[\"model=27k,56k\"]'")
    return found


def write_plan(root: Path, cells: Sequence[PlannedCell], *, extend: bool) -> None:
    """Write runs/<sweep>/plan.jsonl; the same plan again changes nothing.

    Raises WrongInput for twice the same cell, CannotAnswer when the folder holds another plan and the
    caller did not ask to extend it: two grids must not mix by accident.
    """
    twice = {cell.run_id for cell in cells if sum(other.run_id == cell.run_id for other in cells) > 1}
    if twice:
        raise WrongInput(f"the plan holds the same cell twice: {', '.join(sorted(twice))}")
    planned = {cell.run_id for cell in cells}
    before = read_plan(root) if (root / PLAN).exists() else []
    dropped = [cell for cell in before if cell.run_id not in planned]
    if dropped and not extend:
        raise CannotAnswer(
            f"{root} holds another plan ({len(dropped)} of its {len(before)} cells are not in this one, "
            f"e.g. {dropped[0].run_id}); choose another group=, or extend=true to keep both"
        )
    lines = [json.dumps(asdict(cell)) for cell in [*dropped, *cells]]
    write_text(root / PLAN, "\n".join(lines) + "\n")


def read_plan(root: Path) -> list[PlannedCell]:
    """Raises WrongInput when the plan is missing or a line is damaged."""
    path = root / PLAN
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise WrongInput(
            f"{path} does not exist; run `harness sweep` or `harness plan write=true` first"
        ) from error
    cells = []
    for number, line in enumerate(lines, start=1):
        try:
            cells.append(PlannedCell(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise WrongInput(f"{path} line {number} is damaged: {error}") from error
    return cells
