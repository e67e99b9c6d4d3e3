"""`harness fit` for the laws of other responses than the loss against N and D."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.commands.figures import figure_line, typed, write_figure
from harness.commands.observe import runs_path
from harness.commands.root import Experiment, Format
from harness.errors import CannotAnswer, WrongInput
from harness.laws.config import OF_RUNGS
from harness.laws.fit import FitStatus
from harness.laws.responses.catalogue import fit_response_law
from harness.laws.responses.schedules import RunChoice
from harness.laws.responses.source import Source
from harness.report.responses import print_response
from harness.report.terminal import print_json, print_lines


def respond(
    settings: Experiment,
    at: Sequence[Sequence[float]],
    checkpoints: str | None,
    curves: Sequence[str] = (),
    predict: Sequence[str] = (),
    figure: str | None = None,
) -> None:
    """Raises CannotAnswer, after printing, when the law is not identified."""
    of_rungs = settings.fit.law.name in OF_RUNGS
    if settings.runs is None and not of_rungs:
        raise WrongInput(f"law={settings.fit.law.name.value} reads a table: give runs=table.csv")
    source = Source(
        path=runs_path(settings), where=settings.where, columns=settings.columns, pooled=settings.pooled
    )
    evaluations = Source(path=Path(checkpoints), columns=settings.columns) if checkpoints else None
    fit = fit_response_law(source, settings.fit, evaluations, RunChoice(curves, predict))
    result = fit.to_json(at)
    if figure:
        from harness.report.tuning import tuning_figure

        command = typed("fit")
        result["figure"] = write_figure(figure, tuning_figure(result, command), command)
    if settings.format is Format.json:
        print_json(result)
    else:
        print_response(result)
        if figure:
            print_lines(figure_line(result["figure"]))
    if fit.status is FitStatus.not_identified:
        raise CannotAnswer(f"the law is not identified: {'; '.join(fit.reasons)}")
