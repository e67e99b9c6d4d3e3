"""From what the user typed to frozen cells, for every verb that plans or trains."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.commands.root import Experiment, Format, planned, train_config
from harness.config import cells_of, compose_all
from harness.data.prepare import find
from harness.errors import WrongInput
from harness.report.tables import print_plan
from harness.report.terminal import print_json
from harness.sweep.ledger import survey
from harness.sweep.plan import PlannedCell, products, write_plan
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
    if not cells:
        raise WrongInput(f"sweep.axes={settings.sweep.axes} has no cells: an axis is empty")
    every = compose_all(verb, schema, [[*typed, *cell] for cell in cells])
    return [own_cell(one) for one in every]


def write_cells(settings: Experiment, cells: Sequence[Cell], *, extend: bool) -> None:
    """Freeze the cells on disk and write the plan. Nothing edited afterwards reaches them."""
    if other := [cell for cell in cells if cell.config.group != settings.group]:
        raise WrongInput(
            f"a sweep has one group; an axis sets {other[0].config.group} beside {settings.group}"
        )
    write_plan(settings.folder, [planned(cell) for cell in cells], extend=extend)
    for cell in cells:
        try:
            write_cell(Path(settings.runs_dir), cell)
        except WrongInput as error:  # one damaged run must not stop the others; status will name it
            print(error, file=sys.stderr)


def show_plan(settings: Experiment, plan: Sequence[PlannedCell]) -> None:
    states = survey(settings.folder, plan)
    if settings.format is Format.json:
        print_json([{**asdict(state.cell), "status": state.status} for state in states])
    else:
        print_plan(settings.group, states)
