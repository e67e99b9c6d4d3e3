"""The finished runs that an analysis verb is asked about."""

from __future__ import annotations

from pathlib import Path

from harness.commands.root import Experiment
from harness.errors import WrongInput
from harness.laws.config import ParamsKind
from harness.laws.observations import Observations, best_of_cell, observations_from_records
from harness.laws.tables import BestOf, observations_from_table
from harness.runs import finished_records


def runs_path(settings: Experiment) -> Path:
    """`runs`, or this experiment's own folder."""
    return Path(settings.runs) if settings.runs else settings.folder


def observe(settings: Experiment, params: ParamsKind) -> Observations:
    """Rows from a sweep folder or a table, with what was left out and why."""
    path = runs_path(settings)
    if path.is_dir():
        if settings.where:
            raise WrongInput("where= filters the rows of a table; runs= is a folder of runs")
        observations = observations_from_records(*finished_records(path), params=params)
        return best_of_cell(observations) if settings.best_of is BestOf.cell else observations
    if not path.exists():
        raise WrongInput(f"runs={path} does not exist; give a sweep folder or a table (.csv .jsonl .parquet)")
    return observations_from_table(path, settings.where, params, settings.best_of, settings.columns)
