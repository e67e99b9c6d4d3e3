"""The finished runs that an analysis verb is asked about."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from harness.commands.root import Experiment
from harness.errors import CannotAnswer, WrongInput
from harness.laws.cells import label_of
from harness.laws.columns import mapped
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.conventions import require_unit
from harness.laws.observations import Observations
from harness.laws.seeds import SeedNoise, noise_floor
from harness.laws.sources.source import load
from harness.laws.sources.table import as_text
from harness.laws.tables import observations_from_table


def runs_path(settings: Experiment) -> Path:
    """`runs`, or this experiment's own folder."""
    return Path(settings.runs) if settings.runs else settings.folder


def params_kind(settings: Experiment) -> ParamsKind:
    """What N counts in a forecast: as it was told, else as in a fit."""
    return settings.forecast.params or settings.fit.params


def observe(
    settings: Experiment, params: ParamsKind, unit: LossUnit | None = None, of_compute: bool = False
) -> Observations:
    """Rows of any source of runs, with what was left out and why. Without `unit` the loss is in the runs'
    own; the column bits_per_byte is read when that unit is asked for and `loss` is in another. With
    `of_compute` rows may lack N and D, see `observations_from_table`."""

    def read(columns: dict[str, str]) -> Observations:
        return observations_from_table(
            runs_path(settings),
            settings.where,
            params,
            settings.best_of,
            columns,
            of_compute,
            settings.pooled,
        )

    found = read(settings.columns)
    if unit is LossUnit.bits_per_byte and found.loss_unit is not unit:
        with contextlib.suppress(WrongInput):  # no such column: refused below, in the words of the question
            found = read({**settings.columns, "loss": "bits_per_byte"})
    floor = floor_of(Path(settings.noise), params) if settings.noise else None
    return replace(require_unit(found, unit), noise_floor=floor)


def floor_of(path: Path, params: ParamsKind) -> SeedNoise:
    """The noise of a single run that the repeats at `path` measure. Raises CannotAnswer when there are
    none."""
    found = noise_floor(observations_from_table(path, params=params)).one_run
    if found is None:
        raise CannotAnswer(f"noise={path} holds no run that was repeated with another seed")
    return replace(found, of=f"{found.of}, measured in {path}")


def run_columns(settings: Experiment, observations: Observations) -> dict[str, list[str]]:
    """All that the source says of the runs that were kept, as text by column, in their order."""
    table = mapped(load(runs_path(settings)), settings.columns)
    named = {label_of(row, f"row {at}"): row for at, row in enumerate(table.rows, start=1)}
    rows = as_text([named.get(name, {}) for name in observations.run_ids])
    return {column: [row[column] for row in rows] for column in rows[0]}
