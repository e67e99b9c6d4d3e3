"""What every verb reads: one experiment, described once. Each verb's own schema adds what only it needs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path

from harness.forecast.config import ForecastConfig
from harness.laws.config import FitConfig
from harness.laws.tables import BestOf
from harness.sweep.estimate import CostConfig
from harness.sweep.launcher import AnyLauncherConfig
from harness.sweep.plan import SweepConfig
from harness.training.settings import TrainConfig


class Format(Enum):
    table = "table"
    json = "json"


@dataclass(kw_only=True)
class Experiment(TrainConfig):
    """Paths are relative to the working directory. `runs` is a sweep folder or a table of runs.
    `columns` maps a standard column name to the name that the table has for it; `pooled` names columns
    in which the runs of one law may differ although they make other models, such as schedule. `noise` is
    a sweep or table whose repeats measure the noise of a single run, in place of the runs' own.
    """

    data_dir: str = "data"
    runs_dir: str = "runs"
    runs: str | None = None
    where: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    pooled: list[str] = field(default_factory=list)
    noise: str | None = None
    best_of: BestOf = BestOf.none
    sweep: SweepConfig = field(default_factory=SweepConfig)
    launcher: AnyLauncherConfig = field(default_factory=AnyLauncherConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    format: Format = Format.table

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("data_dir", "runs_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name}= is empty; give a folder, or . for the working directory")

    @property
    def folder(self) -> Path:
        """Where this experiment's own runs lie."""
        return Path(self.runs_dir) / self.group


def train_config(experiment: Experiment) -> TrainConfig:
    """The part of an experiment that one run depends on."""
    return TrainConfig(**{f.name: getattr(experiment, f.name) for f in fields(TrainConfig)})
