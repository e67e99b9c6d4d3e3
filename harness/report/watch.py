"""What `harness watch` found, as tables and as a figure."""

from __future__ import annotations

from typing import Any

from harness.report.terminal import print_lines, print_table

ERRORS = (
    "share",
    "runs",
    "no prediction",
    "mean |error|",
    "bias",
    "median |error|",
    "coverage",
    "schedule-blind",
)


def print_replay(result: dict[str, Any], source: str) -> None:
    """`result` is the JSON of a `forecast.inflight.replay.Replay`."""
    print_table(
        f"final {result['metric']} of {result['runs']} runs of {source}, predicted at a share of each",
        ERRORS,
        [error_row(row) for row in result["errors"]],
    )
    rule = result["kill_rule"]
    print_lines(
        f"shape borrowed from {result['lenders']} runs; coverage of the {result['level']:.0%} interval; "
        "schedule-blind: mean |error| of a power law of the run's own rows",
        f"kill rule (stated false-kill rate {rule['stated_false_kill_rate']:.0%}): {rule['killed']} of "
        f"{rule['watched']} runs killed, {rule['false_kills']} of them wrongly "
        f"({percent(rule['false_kill_rate'])} of the kills, {percent(rule['best_runs_killed_rate'])} of the "
        f"{rule['best_runs']} best runs); compute saved {rule['compute_saved']:.1%}",
        *(f"- killed wrongly: {name}" for name in rule["wrong"]),
    )


def error_row(row: dict[str, Any]) -> tuple[str, ...]:
    head = (f"{row['share']:.0%}", str(row["n"]), str(row["without"]))
    if row["mean_absolute_error"] is None:
        return (*head, "-", "-", "-", "-", "-")
    blind = row["schedule_blind_mean_absolute_error"]
    return (
        *head,
        f"{row['mean_absolute_error']:.4f}",
        f"{row['bias']:+.4f}",
        f"{row['median_relative_error']:.2%}",
        f"{row['coverage']:.0%}",
        "-" if blind is None else f"{blind:.4f}",
    )


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
