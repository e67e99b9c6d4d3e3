"""Figures as SVG text, drawn without a display and without anything from the network."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.laws.fit import Fit
from harness.laws.observations import Observations
from harness.report.terminal import si

PARAMS_TICKS = 60
COMMAND_WIDTH = 120
"""Characters of a command on one line under a figure."""


@dataclass(frozen=True)
class Bet:
    """The forecast point to draw, and the outcome once it is known."""

    flops: float
    loss: float
    interval: tuple[float, float]
    actual: float | None


def law_figure(observations: Observations, fit: Fit, bet: Bet | None, command: str = "") -> str:
    """Loss against compute: the runs, the fitted law at each size, the bet and its outcome. A law of unique
    tokens is drawn with the most that a run of its size has."""
    figure, axes = new_figure()
    sizes, unique = np.unique(observations.params), observations.unique_tokens
    for colour, size in zip(colours(len(sizes)), sizes, strict=True):
        mine = observations.params == size
        axes.plot(observations.flops[mine], observations.loss[mine], "o", color=colour, ms=5, label=si(size))
        per_token = float(np.median(observations.flops[mine] / observations.tokens[mine]))
        tokens = np.geomspace(observations.tokens[mine].min(), observations.tokens.max() * 2, PARAMS_TICKS)
        columns = {"params": np.full(len(tokens), size), "tokens": tokens, "flops": tokens * per_token}
        if unique is not None:
            columns["unique_tokens"] = np.full(len(tokens), unique[mine].max())
        axes.plot(tokens * per_token, fit.predict(columns), "-", color=colour, lw=1, alpha=0.7)
    if bet is not None:
        low, high = bet.interval
        reach = [[bet.loss - low], [high - bet.loss]]
        axes.errorbar(
            [bet.flops], [bet.loss], yerr=reach, fmt="D", color="black", capsize=4, label="forecast"
        )
        if bet.actual is not None:
            axes.plot([bet.flops], [bet.actual], "*", color="crimson", ms=13, label="actual")
    axes.set(xscale="log", xlabel=flops_label(fit), ylabel=f"validation loss ({fit.conventions['loss']})")
    axes.legend(title=f"params ({fit.conventions['params']})", fontsize=8, title_fontsize=8)
    return as_svg(figure, command)


def flops_label(fit: Fit) -> str:
    return f"training FLOPs ({fit.conventions['flops']})"


def residual_figure(observations: Observations, fit: Fit) -> str:
    """Relative residuals of the fit against compute: a trend here means the law does not hold."""
    figure, axes = new_figure(height=2.6)
    sizes = np.unique(observations.params)
    for colour, size in zip(colours(len(sizes)), sizes, strict=True):
        mine = np.flatnonzero(observations.params == size)
        fitted = fit.predict(observations.subset(observations.params == size).columns)
        axes.plot(
            observations.flops[mine], 100 * (observations.loss[mine] / fitted - 1), "o", color=colour, ms=5
        )
    axes.axhline(0, color="grey", lw=0.8)
    axes.set(xscale="log", xlabel=flops_label(fit), ylabel="loss over fit, %")
    return as_svg(figure)


def curve_figure(curves: Mapping[str, Sequence[dict[str, Any]]], target: Sequence[dict[str, Any]]) -> str:
    """Validation loss along every run."""
    figure, axes = new_figure(height=3.2)
    for colour, rows in zip(colours(len(curves)), curves.values(), strict=True):
        axes.plot(*validation(rows), ".-", color=colour, lw=1, ms=4)
    if target:
        axes.plot(*validation(target), "-", color="crimson", lw=2, label="the run that was bet on")
        axes.legend(fontsize=8)
    axes.set(xscale="log", xlabel="training tokens", ylabel="validation loss")
    return as_svg(figure)


def validation(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    kept = [row for row in rows if row["kind"] == "validation" and row.get("loss") is not None]
    return [row["tokens"] for row in kept], [row["loss"] for row in kept]


def new_figure(height: float = 4.2) -> tuple[Figure, Axes]:
    figure, axes = pyplot.subplots(figsize=(7.5, height), layout="constrained")
    axes.grid(True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def colours(count: int) -> list[Any]:
    return [pyplot.get_cmap("viridis")(0.9 * i / max(1, count - 1)) for i in range(count)]


def as_svg(figure: Figure, command: str = "") -> str:
    """The <svg> element alone, without dates or random ids, so that equal data give equal text. `command`,
    which draws it again, stands under it."""
    if command:
        lines = textwrap.wrap(command, COMMAND_WIDTH, break_on_hyphens=False)
        figure.supxlabel("\n".join(lines).replace("$", r"\$"), fontsize=6, family="monospace")
    with pyplot.rc_context({"svg.hashsalt": "harness"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
