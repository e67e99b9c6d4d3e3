"""The report: one HTML file that needs nothing else, readable years later on a machine without network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from harness.forecast.score import Score
from harness.forecast.seal import SealedForecast
from harness.laws.fit import Fit
from harness.laws.observations import Observations
from harness.report.figures import Bet, curve_figure, law_figure, residual_figure
from harness.report.fits import span
from harness.report.sensitivity import tornado_figure
from harness.report.terminal import duration, si
from harness.runs import RunRecord, Skipped, write_text


@dataclass(frozen=True, kw_only=True)
class Story:
    """What the page tells: the runs, the fit, and the bet with its outcome where there is one."""

    title: str
    command: str
    fit_command: str
    source: Path
    observations: Observations
    fit: Fit
    fit_json: dict[str, Any]
    sensitivity: dict[str, Any] | None
    records: Sequence[RunRecord]
    skipped: Sequence[Skipped]
    curves: Mapping[str, Sequence[dict[str, Any]]]
    sealed: SealedForecast | None
    target: RunRecord | None
    target_curve: Sequence[dict[str, Any]]
    score: Score | None
    unscored: str


def write_page(path: Path, story: Story) -> None:
    write_text(path, render(story))


def render(story: Story) -> str:
    """Pure: the same story gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(si=si, span=span, duration=duration)
    return environment.get_template("page.html").render(
        story=story,
        law_svg=law_figure(story.observations, story.fit, bet_of(story)),
        tornado_svg=tornado_figure(story.sensitivity) if story.sensitivity else None,
        residual_svg=residual_figure(story.observations, story.fit),
        curve_svg=curve_figure(story.curves, story.target_curve) if story.curves else None,
    )


def bet_of(story: Story) -> Bet | None:
    if story.sealed is None:
        return None
    flops = float(story.sealed.target["flops"])
    actual = story.score.actual if story.score else None
    return Bet(flops, story.sealed.loss, story.sealed.interval, actual)
