"""From what the user typed to frozen cells, for every verb that plans or trains."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from harness.commands.root import Experiment, Format, train_config
from harness.data.prepare import Prepared, find
from harness.errors import CannotAnswer, WrongInput
from harness.grid import settings_of_cells
from harness.report.tables import print_plan
from harness.report.terminal import print_json
from harness.runs import CONFIG, RECORD, RunDirectory
from harness.sweep.estimate import Estimate, Speeds, estimate, median_speeds, speed_key
from harness.sweep.ledger import CellState, names_in, sharing, survey
from harness.sweep.plan import (
    Merged,
    PlanLine,
    PlannedCell,
    grids,
    merge_plan,
    plan_line,
    write_plan,
)
from harness.sweep.queues import queued_cells
from harness.sweep.slurm.jobs import jobs_of
from harness.sweep.slurm.manifest import read_manifests
from harness.sweep.units import saved_flops, shared_tokens, units
from harness.training.cell import Cell, freeze, read_cell
from harness.training.feasible import refuse_untrainable
from harness.training.fitting import memory_of
from harness.training.provenance import code_version
from harness.training.settings import TrainConfig
from harness.training.trunk import family_of, longest_trunk, trunk_of


def own_cell(settings: Experiment) -> Cell:
    """The single run that these settings describe."""
    prepared = find(settings.corpus, settings.tokenizer, Path(settings.data_dir))
    return freeze(train_config(settings), prepared)


def sweep_cells(
    settings: Experiment, verb: str, schema: type[Experiment], typed: Sequence[str]
) -> list[Cell]:
    """Every cell of the sweep: what the user typed, then the cell's own overrides.

    Raises what training one of them would raise before its first step.
    """
    refuse_idle_axes(settings, schema)
    prepared: dict[str, Prepared] = {}
    cells = []
    for one in settings_of_cells(verb, schema, typed, grids(settings.sweep)):
        data = repr((one.corpus, one.tokenizer, one.data_dir))
        if data not in prepared:
            prepared[data] = find(one.corpus, one.tokenizer, Path(one.data_dir))
        cells.append(freeze(train_config(one), prepared[data]))
    if other := [cell for cell in cells if cell.config.group != settings.group]:
        raise WrongInput(
            f"a sweep has one group; an axis sets {other[0].config.group} beside {settings.group}"
        )
    refuse_untrainable(cells)
    return cells


def refuse_idle_axes(settings: Experiment, schema: type[Experiment]) -> None:
    """Raises WrongInput for an axis over what no run depends on, such as cost.mfu: it would do nothing."""
    idle = {field.name for field in fields(schema)} - {field.name for field in fields(TrainConfig)}
    for axis in settings.sweep.overrides:
        if (name := setting_of(axis)) in idle - {"data_dir"}:
            raise WrongInput(f"the axis {axis} changes no run; give {name} beside the axes, not as one")


def setting_of(override: str) -> str:
    """The first part of what an override sets."""
    return override.lstrip("+~").split("=")[0].split(".")[0].split("@")[0]


def planned(cell: Cell, estimate: Estimate | None = None, code_version: str = "") -> PlannedCell:
    trunk = trunk_of(cell)
    about = PlannedCell(
        run_id=cell.run_id,
        model=cell.config.model.name,
        params_non_embedding=cell.shape.params.non_embedding,
        params_total=cell.shape.params.total,
        tokens=cell.horizon.tokens,
        steps=cell.horizon.steps,
        flops=cell.flops,
        lr=cell.peak_lr,
        seed=cell.config.seed,
        config_hash=cell.config_hash,
        code_version=code_version,
        trunk=trunk.key if trunk else "",
        trunk_tokens=trunk.steps * cell.horizon.batch_tokens if trunk else 0,
    )
    if estimate is None:
        return about
    return replace(
        about,
        memory_bytes=estimate.memory_bytes,
        seconds=estimate.seconds,
        seconds_basis=estimate.basis.value,
        cost=estimate.cost,
    )


def unplanned(root: Path, known: Collection[str]) -> list[PlannedCell]:
    """Runs of the folder that are not in its plan: single runs and those of Hydra's own multirun."""
    others = sorted(name for name in names_in(root) - set(known) if (root / name / CONFIG).is_file())
    return [cell for name in others if (cell := described(RunDirectory(root / name))) is not None]


def described(run: RunDirectory) -> PlannedCell | None:
    """None for a damaged run directory."""
    try:
        return planned(read_cell(run))
    except WrongInput:
        return None


def plan_lines(settings: Experiment, cells: Sequence[Cell]) -> list[PlanLine]:
    """The cells with what they will take, ready to be written."""
    speeds, code = measured_speeds(settings.folder, cells), code_version()
    estimates = [
        estimate(cell.shape, memory_of(cell).total, cell.frozen, speeds, settings.cost) for cell in cells
    ]
    return [
        plan_line(planned(cell, taken, code), cell.frozen)
        for cell, taken in zip(cells, estimates, strict=True)
    ]


def measured_speeds(root: Path, cells: Sequence[Cell]) -> Speeds:
    """What the finished runs of the folder say of themselves."""
    known = {cell.run_id: cell for cell in cells}
    return median_speeds(run_speeds(root, known))


def run_speeds(root: Path, known: dict[str, Cell]) -> Iterator[tuple[str, float]]:
    for name in names_in(root):
        run = RunDirectory(root / name)
        if not (run.path / RECORD).exists() or not (run.path / CONFIG).exists():
            continue
        try:
            cell = known.get(name) or read_cell(run)
            yield speed_key(cell.frozen), run.record().tokens_per_second
        except WrongInput:
            continue  # status names damaged runs


def merged_plan(settings: Experiment, lines: Sequence[PlanLine], *, extend: bool, write: bool) -> Merged:
    """The plan as its folder holds it, or would. Nothing edited afterwards reaches its cells."""
    merge = write_plan if write else merge_plan
    merged = merge(settings.folder, lines, lambda: waited_for(settings.folder), extend=extend)
    if merged.replaced and write:
        print(
            f"replaced the earlier plan of {settings.folder}; of its cells {merged.replaced} are dropped, "
            "none of which had begun",
            file=sys.stderr,
        )
    return merged


def waited_for(root: Path) -> set[str]:
    """The cells that a queue of this machine or Slurm holds; where that does not answer, all it was given."""
    manifests = read_manifests(root)
    try:
        jobs = jobs_of(root)
        held = jobs.held.keys() | jobs.waiting
    except CannotAnswer:
        held = {run_id for manifest in manifests for task in manifest.tasks for run_id in task}
    return queued_cells(root) | held


def show_plan(settings: Experiment, plan: Sequence[PlannedCell]) -> None:
    states = survey(settings.folder, plan)
    shared = sharing(settings.folder, states)
    if settings.format is Format.json:
        print_json([plan_row(state, shared[state.cell.run_id]) for state in states])
    else:
        print_plan(settings.group, states, settings.cost.currency, shared)


def plan_row(state: CellState, shared_tokens: int) -> dict[str, Any]:
    """`flops` are of the whole cell, `shared_flops` those of them that another one computes."""
    flops = state.cell.flops * shared_tokens / state.cell.tokens
    status = state.status.value
    return {**vars(state.cell), "status": status, "shared_tokens": shared_tokens, "shared_flops": flops}


def lost_sharing(cells: Sequence[Cell]) -> str:
    """What it costs that cells which differ in their horizon alone warm up in different numbers of steps."""
    now = [planned(cell) for cell in cells]
    alike = [
        replace(about, trunk=family_of(cell), trunk_tokens=longest_trunk(cell))
        for about, cell in zip(now, cells, strict=True)
    ]
    more = saved(alike) - saved(now)
    if more <= 0:
        return ""
    return (
        f"cells that differ in their horizon alone would save {more:.3g} FLOPs if they warmed up in equally "
        "many steps: schedule.warmup_tokens=..., no more than schedule.warmup_fraction of the shortest"
    )


def saved(cells: Sequence[PlannedCell]) -> float:
    return saved_flops(cells, shared_tokens(units(cells)))
