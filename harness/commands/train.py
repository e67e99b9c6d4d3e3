"""Train one run. Typed again, it goes on from its checkpoint; a finished run is shown, not repeated.
Exit code 1 when the run diverged.

harness train model=56k horizon.tokens=2_000_000
harness train model=1.8m horizon.flops=1e14 optim.lr=0.003 seed=1 group=mine
harness train model=56k horizon.tokens_per_param=40 schedule=cosine attention=reference
harness train experiment=demo_frontier
harness train cell=runs/demo/<run>               a planned cell, from its frozen config
harness train -m model=27k,56k horizon.tokens=1_000_000    Hydra's own multirun, one after another

Instead of training, on prepared data:
harness train check=coordinates model=27k parametrization=complete_p      do activations keep their size as
              [widths=[32,64,128]] [depths=[2,4,8]]                       the model grows? figure and numbers
harness train check=groups model=160k parametrization=mup                 each weight's init, lr, decay, eps
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from harness.commands.cells import own_cell, setting_of
from harness.commands.checks import Check, check_coordinates, check_groups
from harness.commands.root import Experiment, Format
from harness.config import task_overrides, verb
from harness.errors import CannotAnswer, WrongInput
from harness.report.tables import print_record
from harness.report.terminal import print_json
from harness.runs import CONFIG, RunDirectory
from harness.sweep.plan import create_run, planned_line
from harness.training.cell import write_cell
from harness.training.settings import Strategy, TrainConfig


@dataclass(kw_only=True)
class Settings(Experiment):
    cell: str | None = None
    check: Check | None = None
    widths: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.check and self.cell is not None:
            raise ValueError(f"check={self.check.value} looks at model=...; it cannot take cell=")
        if (self.widths or self.depths) and self.check is not Check.coordinates:
            raise ValueError("widths and depths belong to check=coordinates; train one model with model=")


@verb("train", Settings)
def main(settings: Settings) -> None:
    match settings.check:
        case Check.coordinates:
            check_coordinates(settings, settings.widths, settings.depths)
        case Check.groups:
            check_groups(settings)
        case None:
            train_run(settings)


def train_run(settings: Settings) -> None:
    if settings.cell is None:
        run = write_cell(Path(settings.runs_dir), own_cell(settings))
    else:
        run = planned_run(settings.cell)
    from harness.training.distributed import read_world
    from harness.training.run import train

    record = train(run, progress=True)
    if not read_world(os.environ, Strategy.auto).leads:
        return  # the process that leads says how it ended
    if settings.format is Format.json:
        print_json(asdict(record))
    else:
        print_record(record, run.path)
    if record.loss is None:
        raise CannotAnswer(f"{run.path} {record.status}: {record.reason}")


def planned_run(path: str) -> RunDirectory:
    """A run directory, made now if only its sweep's plan knows it yet. Raises WrongInput for a setting that
    would not reach it."""
    frozen = {field.name for field in fields(TrainConfig)}
    if lost := [word for word in task_overrides() if setting_of(word) in frozen]:
        raise WrongInput(f"cell={path} is frozen and {lost[0]} would not reach it; leave one of them out")
    run = RunDirectory(Path(path))
    if not (run.path / CONFIG).exists() and (line := planned_line(run.path.parent, run.run_id)):
        return create_run(run.path.parent, line)
    if not path or not run.path.is_dir():
        raise WrongInput(f"cell={path} is neither a run directory nor a planned cell")
    return run
