"""Compare a sealed forecast with the run it was about.

    harness score experiment=demo_frontier
    harness score forecast_file=runs/bet/forecast.json run=runs/bet/<run>
    harness score experiment=demo_frontier format=json

Exit code 1 when the run is not finished, 2 when the seal was edited.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.commands.forecast import SEAL
from harness.commands.root import Experiment, Format
from harness.config import verb
from harness.errors import CannotAnswer, WrongInput
from harness.forecast.score import Score, score
from harness.forecast.seal import SealedForecast, open_seal
from harness.report.fits import print_score
from harness.report.terminal import print_json
from harness.runs import RECORD, RunDirectory


@dataclass(kw_only=True)
class Settings(Experiment):
    forecast_file: str | None = None
    run: str | None = None


@verb("score", Settings)
def main(settings: Settings) -> None:
    path = Path(settings.forecast_file) if settings.forecast_file else settings.folder / SEAL
    sealed = open_seal(path)
    if not settings.run and not sealed.target["run_id"]:
        raise WrongInput(f"{path} is a bet on bare numbers; name the run that took it up with run=")
    run = Path(settings.run) if settings.run else path.parent / str(sealed.target["run_id"])
    result = score_run(sealed, RunDirectory(run))
    if settings.format is Format.json:
        print_json(result.to_json())
    else:
        print_score(result, sealed)


def score_run(sealed: SealedForecast, run: RunDirectory) -> Score:
    if not (run.path / RECORD).exists():
        raise CannotAnswer(f"{run.path} is not finished ({run.status().value}); train it, then score again")
    record = run.record()
    return score(sealed, record, record.started_at or None)
