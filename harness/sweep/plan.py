"""The plan of a sweep: which cells, frozen, and what they cost. It is written before anything is spent.

runs/<sweep>/plan.jsonl has one line a cell, and each line ends with a hash of what stands before it. A cell
keeps the line it was first planned with: neither an edited config nor other code reaches it afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from harness.errors import CannotAnswer, WrongInput
from harness.runs import PLAN, RunDirectory, one_at_a_time, planned_ids, write_frozen, write_text

LOCK = ".plan"
FROZEN, SEAL = ', "frozen": ', ', "hash": "'


@dataclass(kw_only=True)
class SweepConfig:
    """`axes` are in Hydra's override grammar, e.g. `model=27k,56k`, `seed=range(3)`, `model=glob(*k)`:
    every value of one with every value of the others. Each entry of `tied` is an axis too, of overrides
    that move together: `[model=27k,56k, optim.lr=0.01,0.007]` has two values. `also` lists more products
    beside this grid, e.g. `[model=27k, seed=1,2]` for repeats of one cell."""

    axes: list[str] = field(default_factory=list)
    tied: list[list[str]] = field(default_factory=list)
    also: list[list[str]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.axes or self.tied or self.also)

    @property
    def overrides(self) -> list[str]:
        """Every axis, whatever it belongs to."""
        return [*self.axes, *(word for group in (*self.tied, *self.also) for word in group)]


def grids(sweep: SweepConfig) -> list[list[list[str]]]:
    """The grids of a sweep, each a list of axes, each a list of overrides that move together.

    Raises WrongInput when there are none.
    """
    main = [*sweep.tied, *([axis] for axis in sweep.axes)]
    found = [grid for grid in (main, *([[axis] for axis in axes] for axes in sweep.also)) if grid]
    if not found:
        raise WrongInput("the sweep has no cells: add e.g. 'sweep.axes=[\"model=27k,56k\"]'")
    if not all(axis for grid in found for axis in grid):
        raise WrongInput("sweep.tied has an empty group; list the overrides that move together")
    return found


class TimeBasis(Enum):
    """How the time of a cell is known."""

    measured = "measured"
    stated = "stated"
    unknown = "unknown"


@dataclass(frozen=True)
class PlannedCell:
    """What a person wants to know of a cell. Five are as of its planning: bytes at the peak, seconds on one
    device and how they are known, their price, the code that was there. Cells of equal `trunk` train alike
    for their first `trunk_tokens` tokens; an empty one is shared with nobody."""

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
    memory_bytes: int | None = None
    seconds: float | None = None
    seconds_basis: str = TimeBasis.unknown.value
    cost: float | None = None
    code_version: str = ""
    trunk: str = ""
    trunk_tokens: int = 0


@dataclass(frozen=True)
class PlanLine:
    """One line of plan.jsonl: the cell, and the text that holds its frozen config as well."""

    cell: PlannedCell
    text: str

    @property
    def frozen(self) -> dict[str, Any] | None:
        """The resolved config; None in a plan of the first version, which kept it in the run directory."""
        found: dict[str, Any] | None = json.loads(self.text).get("frozen")
        return found


def plan_line(cell: PlannedCell, frozen: dict[str, Any]) -> PlanLine:
    body = json.dumps({**vars(cell), "frozen": frozen}, allow_nan=False)[:-1]
    return PlanLine(cell, f'{body}{SEAL}{text_hash(body)}"}}')


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def parse_line(text: str, where: str) -> PlanLine:
    """Raises WrongInput when the line is damaged or was edited. The config is not parsed: few need it."""
    about, is_frozen, _ = text.partition(FROZEN)
    body, _, seal = text.rpartition(SEAL)
    if is_frozen and seal != f'{text_hash(body)}"}}':
        raise WrongInput(f"{where} was edited or damaged after it was planned (its hash does not match)")
    try:
        return PlanLine(PlannedCell(**json.loads(f"{about}}}" if is_frozen else text)), text)
    except (json.JSONDecodeError, TypeError) as error:
        raise WrongInput(f"{where} is damaged: {error}") from error


def read_lines(root: Path) -> list[PlanLine]:
    """Raises WrongInput when the plan is missing or a line is damaged or edited."""
    path = root / PLAN
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise WrongInput(f"{path} does not exist; run `harness plan` or `harness sweep` first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise WrongInput(f"{path} is damaged: {error}") from error
    return [parse_line(line, f"{path} line {number}") for number, line in enumerate(lines, start=1)]


def read_plan(root: Path) -> list[PlannedCell]:
    return [line.cell for line in read_lines(root)]


@dataclass(frozen=True)
class Merged:
    """A plan as it will stand in its folder, and how many cells of an earlier one it replaces."""

    lines: list[PlanLine]
    replaced: int


Queued = Callable[[], Collection[str]]
"""The cells that somebody waits for, asked when nobody else can plan."""


def merge_plan(root: Path, lines: Sequence[PlanLine], queued: Queued, *, extend: bool) -> Merged:
    """The folder's plan with these cells; each cell that was there keeps its line.

    Raises WrongInput for twice the same cell, CannotAnswer when the folder holds another plan, some cell of
    which has begun or is `queued`, and the caller did not ask to extend it: two grids must not mix by
    accident.
    """
    ids = different_ids(lines)
    before = {line.cell.run_id: line for line in read_lines(root)} if (root / PLAN).exists() else {}
    others = [line for run_id, line in before.items() if run_id not in ids]
    waited_for = queued()
    in_use = [run_id for run_id in run_ids(others) if run_id in waited_for or (root / run_id).exists()]
    if in_use and not extend:
        raise CannotAnswer(
            f"{root} holds another plan ({len(others)} of its {len(before)} cells are not in this one, "
            f"e.g. {in_use[0]}); choose another group=, or extend=true to keep both"
        )
    kept = [settled(before.get(line.cell.run_id), line) for line in lines]
    return Merged([*others, *kept] if extend else kept, 0 if extend else len(others))


def different_ids(lines: Iterable[PlanLine]) -> set[str]:
    """Raises WrongInput for twice the same cell, which is named once."""
    ids = Counter(run_ids(lines))
    if twice := sorted(run_id for run_id, number in ids.items() if number > 1):
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        raise WrongInput(f"the plan holds the same cell twice: {twice[0]}{more}; take one of them out")
    return set(ids)


def settled(before: PlanLine | None, now: PlanLine) -> PlanLine:
    """The line as it was, unless the data have moved or it holds no config."""
    if before is None or before.text == now.text:
        return now
    old, new = before.frozen, now.frozen
    if old is None or new is None:
        return now
    if old["tokens_path"] == new["tokens_path"]:
        return before
    return plan_line(before.cell, {**old, "tokens_path": new["tokens_path"]})


def write_plan(root: Path, lines: Sequence[PlanLine], queued: Queued, *, extend: bool) -> Merged:
    """Write runs/<sweep>/plan.jsonl; the same plan again changes nothing. Raises as `merge_plan` does."""
    different_ids(lines)  # before the folder is made
    with one_at_a_time(root, LOCK):
        merged = merge_plan(root, lines, queued, extend=extend)
        text = "".join(f"{line.text}\n" for line in merged.lines)
        if not (root / PLAN).exists() or (root / PLAN).read_text(encoding="utf-8") != text:
            write_text(root / PLAN, text)
    return merged


@contextlib.contextmanager
def still_planned(root: Path, cells: Collection[str]) -> Iterator[None]:
    """Hold the plan while a queue notes these cells: whoever plans next finds them there.

    Raises CannotAnswer when somebody has put another plan in its place since they were read.
    """
    with one_at_a_time(root, LOCK):
        planned = set(planned_ids(root / PLAN)) if (root / PLAN).exists() else set()
        if missing := [run_id for run_id in cells if run_id not in planned]:
            raise CannotAnswer(
                f"{root / PLAN} is another plan by now, e.g. {missing[0]} is not in it; nothing was started: "
                "choose another group=, or extend=true to keep both"
            )
        yield


def run_ids(lines: Iterable[PlanLine]) -> list[str]:
    return [line.cell.run_id for line in lines]


def create_run(root: Path, line: PlanLine) -> RunDirectory:
    """The run directory of a planned cell, with its frozen config. Raises WrongInput when that is damaged."""
    run = RunDirectory(root / line.cell.run_id)
    if (frozen := line.frozen) is not None:
        write_frozen(run, line.cell.config_hash, frozen, line.cell.code_version)
    return run


def planned_line(root: Path, run_id: str) -> PlanLine | None:
    """The line of one cell, without reading the others; None when there is none."""
    try:
        with (root / PLAN).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.startswith(f'{{"run_id": "{run_id}"'):
                    return parse_line(line.rstrip("\n"), f"{root / PLAN} line {number}")
    except FileNotFoundError:
        pass
    return None
