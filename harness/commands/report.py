"""Write one self-contained HTML page of a sweep, its fit, and its forecast when there is one.

harness report experiment=demo_frontier            runs/demo_frontier/report.html
harness report experiment=demo                     the sweep alone
harness report runs=runs/demo out=page.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.commands.figures import typed
from harness.commands.forecast import SEAL
from harness.commands.observe import observe, runs_path
from harness.commands.root import Experiment, Format
from harness.commands.score import score_run
from harness.config import verb
from harness.errors import CannotAnswer
from harness.forecast.seal import SealedForecast, open_seal
from harness.laws.config import OTHER_RESPONSES
from harness.laws.fit import fit_law
from harness.laws.intervals import fit_json
from harness.laws.observations import Observations
from harness.laws.sensitivity import sensitivity
from harness.laws.sources.source import Source, source_of
from harness.report.page import Story, write_page
from harness.report.terminal import print_json, print_lines
from harness.runs import RECORD, RunDirectory, finished_records


@dataclass(kw_only=True)
class Settings(Experiment):
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fit.law.name in OTHER_RESPONSES:
            law = self.fit.law.name.value
            raise ValueError(f"law={law} is no law of the loss of finished runs; use harness fit law={law}")


@verb("report", Settings)
def main(settings: Settings) -> None:
    out = Path(settings.out) if settings.out else settings.folder / "report.html"
    write_page(out, tell(settings))
    if settings.format is Format.json:
        print_json({"report": str(out)})
    else:
        print_lines(f"report: {out}")


def tell(settings: Settings) -> Story:
    """Everything the page shows, gathered from the run directories and the seal."""
    source = runs_path(settings)
    observations = observe(settings, settings.fit.params, settings.fit.unit)
    fit = fit_law(observations, settings.fit.law, settings.fit.level)
    records, skipped = finished_records(source) if source_of(source) is Source.records else ([], [])
    seal = settings.folder / SEAL
    sealed = open_seal(seal) if seal.exists() else None
    target = RunDirectory(settings.folder / str(sealed.target["run_id"])) if sealed else None
    record = target.record() if target and (target.path / RECORD).exists() else None
    return Story(
        title=settings.group,
        command=typed("report"),
        fit_command=typed("fit", "sensitivity=true", "figure=tornado.svg", without=("out", "format")),
        source=source,
        observations=observations,
        fit=fit,
        fit_json=fit_json(observations, fit, settings.fit),
        sensitivity=other_choices(settings, observations),
        records=records,
        skipped=skipped,
        curves={r.run_id: RunDirectory(source / r.run_id).metrics() for r in records},
        sealed=sealed,
        target=record,
        target_curve=target.metrics() if target else [],
        **outcome(sealed, target if record else None),
    )


def other_choices(settings: Settings, observations: Observations) -> dict[str, Any] | None:
    """None where the user's own setting has no optimum to move."""
    try:
        return sensitivity(
            observations, settings.fit, counted=lambda kind, unit: observe(settings, kind, unit)
        ).to_json()
    except CannotAnswer:
        return None


def outcome(sealed: SealedForecast | None, target: RunDirectory | None) -> dict[str, Any]:
    """The score, or why there is none."""
    if sealed is None or target is None:
        return {"score": None, "unscored": ""}
    try:
        return {"score": score_run(sealed, target), "unscored": ""}
    except CannotAnswer as error:
        return {"score": None, "unscored": str(error)}
