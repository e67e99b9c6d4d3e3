"""The finished runs that an analysis verb is asked about."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.commands.root import Experiment
from harness.errors import WrongInput
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.conventions import require_unit
from harness.laws.observations import Observations, best_of_cell, observations_from_records
from harness.laws.sources.table import as_text
from harness.laws.tables import BestOf, label_of, load, mapped, observations_from_table
from harness.runs import finished_records


def runs_path(settings: Experiment) -> Path:
    """`runs`, or this experiment's own folder."""
    return Path(settings.runs) if settings.runs else settings.folder


def observe(settings: Experiment, params: ParamsKind, unit: LossUnit | None = None) -> Observations:
    """Rows from a sweep folder or a table, with what was left out and why. Without `unit` the loss is in
    the runs' own: nats per token in a sweep folder, what a table says of itself."""
    path = runs_path(settings)
    if path.is_dir():
        if settings.where:
            raise WrongInput("where= filters the rows of a table; runs= is a folder of runs")
        found, skipped = finished_records(path)
        observations = observations_from_records(found, skipped, params, unit or LossUnit.nats_per_token)
        return best_of_cell(observations) if settings.best_of is BestOf.cell else observations
    if not path.exists():
        raise WrongInput(f"runs={path} does not exist; give a sweep folder or a table (.csv .jsonl .parquet)")
    return from_table(settings, path, params, unit)


def from_table(settings: Experiment, path: Path, params: ParamsKind, unit: LossUnit | None) -> Observations:
    """The column bits_per_byte is read when that unit is asked for and `loss` is in another."""

    def read(columns: dict[str, str]) -> Observations:
        return observations_from_table(path, settings.where, params, settings.best_of, columns)

    found = read(settings.columns)
    if unit is LossUnit.bits_per_byte and found.loss_unit is not unit:
        found = read({**settings.columns, "loss": "bits_per_byte"})
    return require_unit(found, unit)


def run_columns(settings: Experiment, observations: Observations) -> dict[str, list[str]]:
    """All that the source says of the runs that were kept, as text by column, in their order."""
    path = runs_path(settings)
    if path.is_dir():
        named: dict[str, dict[str, Any]] = {r.run_id: asdict(r) for r in finished_records(path)[0]}
    else:
        table = mapped(load(path), settings.columns).rows
        named = {label_of(row, f"row {at}"): dict(row) for at, row in enumerate(table, start=1)}
    rows = as_text([named.get(name, {}) for name in observations.run_ids])
    return {column: [row[column] for row in rows] for column in rows[0]}
