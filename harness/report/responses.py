"""Fits of other responses than the loss, as a person reads them."""

from __future__ import annotations

from typing import Any

from harness.report.fits import dropped_lines, span
from harness.report.terminal import print_lines, print_table
from harness.report.tuning import print_rungs


def print_response(result: dict[str, Any]) -> None:
    intervals, boot = result["intervals"], result["bootstrap"]
    level = f"{boot['level']:.0%} interval" if boot else "interval"
    rows = [(name, f"{value:.6g}", span(intervals.get(name))) for name, value in result["params"].items()]
    if rows:
        print_table(f"{result['law']}: {result['status']}", ("parameter", "value", level), rows)
    if result["predictions"]:
        print_predictions(result, level)
    if "cells" in result:
        print_rungs(result["cells"], result["level"])
    if "curves" in result:
        print_curves(result["curves"])
    if "doubling_months" in result:
        found = result["doubling_months"]
        months = "never" if found["value"] is None else f"every {found['value']:.3g} months"
        print_lines(f"effective compute doubles {months}, interval {span(found['interval'])}")
    conventions = ", ".join(f"{name}: {value}" for name, value in result["conventions"].items())
    print_lines(
        *(
            f"{step['law']}: {step['n']} rows, objective {step['objective']:.8g}, "
            f"residual {step['residual_rms']:.3g} rms in {step['conventions']['response']}"
            for step in result["steps"]
        ),
        f"conventions: {conventions}; data {result['data_hash'][:12]}",
        *dropped_lines(result["dropped"]),
        *(f"note: {note}" for note in result["notes"]),
    )


def print_predictions(result: dict[str, Any], level: str) -> None:
    inputs = result["inputs"]
    response = next(name for name in result["predictions"][0] if name not in (*inputs, "interval"))
    rows = [
        (*(f"{point[name]:.4g}" for name in inputs), f"{point[response]:.4g}", span(point["interval"]))
        for point in result["predictions"]
    ]
    print_table("predicted", (*inputs, response, level), rows)


def print_curves(curves: list[dict[str, Any]]) -> None:
    rows = [
        (
            curve["run_id"],
            curve["role"],
            str(curve["last_step"]),
            f"{curve['loss']:.5g}",
            f"{curve['predicted_loss']:.5g}",
            f"{curve['mean_relative_error']:.3%}",
            f"{curve['worst_relative_error']:.3%}",
        )
        for curve in curves
    ]
    head = ("run", "role", "last step", "loss", "by the law", "mean error", "worst error")
    print_table("curves", head, rows)
