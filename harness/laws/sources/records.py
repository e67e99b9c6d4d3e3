"""Run directories: the fields of every finished run's record are the columns."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from harness.errors import CannotAnswer, WrongInput
from harness.laws.collect import summary
from harness.laws.observations import FLOPS_EXACT
from harness.laws.sources.table import Table, as_text
from harness.runs import CONFIG, RECORD, RunDirectory, finished_records


def is_run_file(path: Path) -> bool:
    """Whether only the harness writes such a file; many tools write a config.json of their own."""
    return path.name == RECORD or (path.name == CONFIG and is_frozen_config(path))


def is_frozen_config(path: Path) -> bool:
    try:
        RunDirectory(path.parent).config()
    except WrongInput:
        return False
    return True


def read_records(root: Path) -> Table:
    """Finished runs, one a row. Raises CannotAnswer when none is finished."""
    records, skipped = finished_records(root)
    if not records:
        raise CannotAnswer(f"no run in {root} is finished: {summary(skipped) or 'it holds no run directory'}")
    rows = as_text([asdict(record) for record in records])
    return Table(path=root, rows=rows, skipped=tuple(skipped), flops_kind=FLOPS_EXACT)
