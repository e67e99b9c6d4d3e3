"""A backtest as a person reads it: every law beside the ensemble, and the runs held out."""

from __future__ import annotations

from typing import Any

from harness.report.fits import dropped_lines, record_at
from harness.report.terminal import counted, print_lines, print_table, si

MOST_RUNS = 12
"""Of the runs held out, shown one by one; all are in the JSON."""


def print_backtest(found: dict[str, Any]) -> None:
    if found["ensemble"] is not None:
        print_table(
            f"{counted(found['n_test'], 'run')} held out, {found['n_train']} fitted, "
            f"{found['holdout_ratio']:g} times less compute; errors are predicted over actual",
            ("law", "weight", "median |error|", "dearest run", "bias", "in 90 % interval"),
            [
                *(row(case["law"], case, found["weights"][case["law"]]) for case in found["cases"]),
                row("ensemble", found["ensemble"], None),
                row(f"baseline: {found['baseline']['law']}", found["baseline"], None),
            ],
        )
        runs = found["points"]
        print_table(
            "the runs held out",
            ("run", "params", "tokens", "FLOPs", "actual", "predicted", "error", "90 % interval"),
            [point(run) for run in runs[:MOST_RUNS]],
        )
        if len(runs) > MOST_RUNS:
            print_lines(f"and {len(runs) - MOST_RUNS} more (format=json)")
        print_record(found["rolling"])
    print_lines(f"verdict: {found['verdict']}", *(f"- {reason}" for reason in found["reasons"]))
    print_lines(*dropped_lines(found["dropped"]))


def row(law: str, case: dict[str, Any], weight: float | None) -> tuple[str, ...]:
    return (
        law,
        "" if weight is None else f"{weight:.2f}",
        f"{case['error_median']:.2%}",
        f"{case['error_top']:+.2%}",
        f"{case['bias']:+.2%}",
        f"{case['coverage90']:.0%}",
    )


def point(run: dict[str, Any]) -> tuple[str, ...]:
    low, high = run["interval"]
    return (
        run["run_id"],
        *(si(run["params"]), si(run["tokens"]), f"{run['flops']:.3g}"),
        *(f"{run['actual']:.4f}", f"{run['predicted']:.4f}", f"{run['error']:+.2%}"),
        f"[{low:.4f}, {high:.4f}]{'' if run['inside'] else ' OUTSIDE'}",
    )


def print_record(rolling: dict[str, Any]) -> None:
    """How such forecasts fared inside the rows that were fitted."""
    shown = "; ".join(record_at(at) for at in rolling["record"])
    print_lines(f"rolling origin inside the fitted runs: {shown}")


def backtest_figure(found: dict[str, Any], command: str) -> str:
    """Predicted over actual of every run held out, with its interval, against compute; under it the command
    that draws it again."""
    from harness.report.figures import as_svg, new_figure

    figure, axes = new_figure(height=3.2)
    for run in found["points"]:
        low, high = (100 * (end / run["actual"] - 1) for end in run["interval"])
        middle = 100 * run["error"]
        colour = "black" if run["inside"] else "crimson"
        reach = [[middle - low], [high - middle]]
        axes.errorbar([run["flops"]], [middle], yerr=reach, fmt="o", color=colour, ms=5, capsize=3)
    axes.axhline(0, color="grey", lw=0.8)
    axes.set(xscale="log", xlabel="training FLOPs", ylabel="predicted over actual loss, %")
    return as_svg(figure, command)
