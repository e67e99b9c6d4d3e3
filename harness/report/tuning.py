"""The best learning rate and batch of every rung, as a table and as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.report.fits import span
from harness.report.terminal import print_lines, print_table, si

SETTINGS = {"lr": ("lr", "learning rate"), "batch_tokens": ("batch", "batch, tokens")}
"""By the name of its JSON key: what its other keys begin with, and what a person calls it."""


def print_rungs(rungs: Sequence[dict[str, Any]], level: float) -> None:
    """One table for each setting that varies, a line a rung; what lies at an edge stands in capitals."""
    head = ("params", "tokens", "optimum", f"{level:.0%} interval", "twice off", "best run", "its loss")
    for key, (short, label) in SETTINGS.items():
        varying = [rung for rung in rungs if rung[f"{short}_varies"]]
        if varying:
            rows = [rung_row(rung, key, short) for rung in varying]
            print_table(f"{label} of every rung", (*head, "over optimum", "runs", "optimum lies"), rows)
    tried = [rung for rung in rungs if any(rung[f"{short}_varies"] for short, _ in SETTINGS.values())]
    edges = [rung for rung in tried if rung["edge"]]
    print_lines(*(f"- {si(r['params'])}, {si(r['tokens'])} tokens: {edge_line(r)}" for r in edges))


def rung_row(rung: dict[str, Any], key: str, short: str) -> tuple[str, ...]:
    edge = rung[f"{short}_edge"]
    known = rung["loss"] is not None
    return (
        si(rung["params"]),
        si(rung["tokens"]),
        f"{rung[key]:.4g}" if known else "-",
        span(rung[f"{short}_interval"], ".3g") if known else "-",
        percent(rung[f"{short}_twice_off"]),
        f"{rung[f'best_{key}']:.4g}",
        f"{rung['best_loss']:.4f}",
        percent(rung["loss_excess"]),
        str(rung["runs"]),
        f"AT THE {edge.upper()}" if edge != "inside" else "inside" if known else "NOT SEEN",
    )


def edge_line(rung: dict[str, Any]) -> str:
    cost = rung["edge_cost"]
    return rung["edge"] + (f"; there the loss may lie about {cost:.2%} above its lowest" if cost else "")


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:+.2%}"


def tuning_figure(result: dict[str, Any], command: str = "") -> str:
    """SVG: the loss of every run over the lowest of its rung against each setting that varies, and the
    parabola of each rung through its optimum. A rung at an edge is dashed, its runs hollow."""
    from harness.report.figures import as_svg, colours, new_figure

    rungs = result["cells"]
    shown = [key for key, (short, _) in SETTINGS.items() if any(rung[f"{short}_varies"] for rung in rungs)]
    figure, first = new_figure(height=3.6 * max(1, len(shown)))
    first.remove()
    for place, key in enumerate(shown, start=1):
        axes = figure.add_subplot(len(shown), 1, place)
        axes.grid(True, which="major", alpha=0.25)
        for colour, rung in zip(colours(len(rungs)), rungs, strict=True):
            draw_rung(axes, rung, key, colour)
        axes.set(xscale="log", xlabel=SETTINGS[key][1], ylabel="loss over the rung's lowest, %")
        axes.legend(title=f"params ({result['conventions']['params']}), tokens", fontsize=7, title_fontsize=7)
    return as_svg(figure, command)


def draw_rung(axes: Any, rung: dict[str, Any], key: str, colour: Any) -> None:
    import numpy as np

    short = SETTINGS[key][0]
    runs = [run for run in rung["trials"] if run["loss"] is not None and run[key] is not None]
    low = min([run["loss"] for run in runs] + ([rung["loss"]] if rung["loss"] is not None else []))
    at_edge = bool(rung["edge"])
    values = np.array([run[key] for run in runs])
    above = [100 * (run["loss"] / low - 1) for run in runs]
    label = f"{si(rung['params'])}, {si(rung['tokens'])}" + (" (at an edge)" if at_edge else "")
    axes.plot(values, above, "o", color=colour, ms=4, mfc="none" if at_edge else colour, label=label)
    if rung["loss"] is None or not rung[f"{short}_varies"]:
        return
    x = np.geomspace(values.min(), values.max(), 60)
    rise = 0.5 * rung[f"{short}_curvature"] * np.log(x / rung[key]) ** 2
    drawn = 100 * (rung["loss"] * np.exp(rise) / low - 1)
    seen = drawn <= max(above) + 1
    axes.plot(x[seen], drawn[seen], "--" if at_edge else "-", color=colour, lw=1)
    if math.isfinite(rung[key]):
        axes.axvline(rung[key], color=colour, lw=0.6, alpha=0.5)
