"""Compare a sealed forecast with the run it was about.

    harness score experiment=demo_frontier
    harness score forecast=runs/bet/forecast.json run=runs/bet/<run>
    harness score experiment=demo_frontier format=json
    harness score summary=true                         coverage and bias of all forecasts ever scored

Each score is added to `record`, runs/scores.jsonl when not given; a seal counts once.
Exit code 1 when the run is not finished, 2 when the seal was edited.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.commands.forecast import SEAL
from harness.commands.root import Experiment, Format
from harness.config import verb
from harness.errors import CannotAnswer, WrongInput
from harness.forecast.record import append_score, read_scores, summarise
from harness.forecast.score import Score, score
from harness.forecast.seal import SealedForecast, open_seal
from harness.report.fits import print_record_of_scores, print_score
from harness.report.terminal import print_json
from harness.runs import RECORD, RunDirectory

RECORD_OF_SCORES = "scores.jsonl"


@dataclass(kw_only=True)
class Settings(Experiment):
    forecast: Any = None
    forecast_file: str | None = None
    run: str | None = None
    record: str | None = None
    summary: bool = False

    @property
    def record_path(self) -> Path:
        return Path(self.record) if self.record else Path(self.runs_dir) / RECORD_OF_SCORES

    @property
    def seal(self) -> Path:
        """`forecast`, or the experiment's own. An experiment may also hold settings of a forecast there."""
        named = self.forecast if isinstance(self.forecast, str) else self.forecast_file
        return Path(named) if named else self.folder / SEAL


@verb("score", Settings)
def main(settings: Settings) -> None:
    if settings.summary:
        show_record(settings)
        return
    path = settings.seal
    sealed = open_seal(path)
    if not settings.run and not sealed.target["run_id"]:
        raise WrongInput(f"{path} is a bet on bare numbers; name the run that took it up with run=")
    run = Path(settings.run) if settings.run else path.parent / str(sealed.target["run_id"])
    result = score_run(sealed, RunDirectory(run))
    append_score(settings.record_path, result)
    if settings.format is Format.json:
        print_json({**result.to_json(), "record": summarise(read_scores(settings.record_path))})
    else:
        print_score(result, sealed)
        print_record_of_scores(summarise(read_scores(settings.record_path)))


def show_record(settings: Settings) -> None:
    scores = read_scores(settings.record_path)
    if not scores:
        raise CannotAnswer(f"no forecast was scored yet in {settings.record_path}")
    if settings.format is Format.json:
        print_json({**summarise(scores), "scores": scores})
    else:
        print_record_of_scores(summarise(scores))


def score_run(sealed: SealedForecast, run: RunDirectory) -> Score:
    if not (run.path / RECORD).exists():
        raise CannotAnswer(f"{run.path} is not finished ({run.status().value}); train it, then score again")
    record = run.record()
    return score(sealed, record, record.started_at or None)
