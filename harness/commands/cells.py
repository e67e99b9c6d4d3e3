"""From what the user typed to frozen cells, for every verb that plans or trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.commands.root import Experiment, planned, train_config
from harness.config import cells_of, compose_all
from harness.data.prepare import find
from harness.runs import RunDirectory
from harness.sweep.plan import products, write_plan
from harness.training.cell import Cell, freeze, write_cell


def own_cell(settings: Experiment) -> Cell:
    """The single run that these settings describe."""
    prepared = find(settings.corpus, settings.tokenizer, Path(settings.data_dir))
    return freeze(train_config(settings), prepared)


def sweep_cells(
    settings: Experiment, verb: str, schema: type[Experiment], typed: Sequence[str]
) -> list[Cell]:
    """Every cell of the sweep: what the user typed, then the cell's own overrides."""
    cells = cells_of(products(settings.sweep))
    every = compose_all(verb, schema, [[*typed, *cell] for cell in cells])
    return [own_cell(one) for one in every]


def write_cells(settings: Experiment, cells: Sequence[Cell], *, extend: bool) -> list[RunDirectory]:
    """Freeze the cells on disk and write the plan. Nothing edited afterwards reaches them."""
    write_plan(settings.folder, [planned(cell) for cell in cells], extend=extend)
    return [write_cell(Path(settings.runs_dir), cell) for cell in cells]
