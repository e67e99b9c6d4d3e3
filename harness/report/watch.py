"""What `harness watch` found, as tables and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.forecast.inflight.outlook import Outlook, Rule, Verdict
from harness.forecast.inflight.trajectory import Metric, Trajectory
from harness.report.tables import LONGEST, print_more
from harness.report.terminal import print_lines, print_table
from harness.sweep.kill import SAID, Ending

MOST_CURVES = 60
CELLS = ("cell", "done", "now", "final", "interval", "P(beats best)", "best", "P(diverges)", "verdict")

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


def print_outlooks(name: str, outlooks: Sequence[Outlook], finished: int, rule: Rule, metric: Metric) -> None:
    """Every running cell, those to be killed first."""
    ordered = sorted(outlooks, key=lambda one: (one.verdict is not Verdict.kill, one.run_id))
    title = f"{name}: {len(outlooks)} running cells, {finished} finished; final {metric.value}"
    print_table(f"{title}, {rule.level:.0%} interval", CELLS, [outlook_row(one) for one in ordered[:LONGEST]])
    print_more(len(ordered) - LONGEST)
    reasons: dict[str, list[str]] = {}
    for one in ordered:
        if one.reason:
            reasons.setdefault(one.reason, []).append(one.run_id)
    for reason, names in list(reasons.items())[:LONGEST]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print_lines(f"- {names[0]}{more}: {reason}")


def outlook_row(one: Outlook) -> tuple[str, ...]:
    interval = one.interval
    return (
        one.run_id,
        f"{one.share:.0%}",
        f"{one.latest:.4f}",
        number(one.final),
        "-" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]",
        "-" if one.beats_best is None else f"{one.beats_best:.3f}",
        number(one.best),
        f"{one.diverges:.3f}",
        one.verdict.value,
    )


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def print_endings(outlooks: Sequence[Outlook], endings: Mapping[str, Ending], dry: bool) -> None:
    doomed = [one.run_id for one in outlooks if one.verdict is Verdict.kill]
    if dry and doomed:
        print_lines(f"nothing was killed; dry=false kills {len(doomed)} cells")
    print_lines(*(f"{run_id}: {SAID[ending]}" for run_id, ending in endings.items()))


def watch_figure(
    outlooks: Sequence[Outlook],
    running: Sequence[Trajectory],
    finished: Sequence[Trajectory],
    metric: Metric,
    command: str,
) -> str:
    """SVG: the running cells so far with their predicted ends, over the finished runs, against compute."""
    from harness.report.figures import as_svg, new_figure

    figure, axes = new_figure()
    for run in finished[:MOST_CURVES]:
        axes.plot(run.steps / run.end * run.budget, run.values, "-", color="lightgrey", lw=0.7)
    ends = [(run.budget, run.final) for run in finished if run.final is not None]
    axes.plot([x for x, _ in ends], [y for _, y in ends], "o", color="grey", ms=4, label="finished")
    said: set[str] = set()
    for one, run in list(zip(outlooks, running, strict=True))[:MOST_CURVES]:
        colour = {"kill": "crimson", "keep": "tab:blue", "unknown": "black"}[one.verdict.value]
        label = "" if one.verdict.value in said else one.verdict.value
        said.add(one.verdict.value)
        axes.plot(run.steps / run.end * run.budget, run.values, "-", color=colour, lw=1, label=label)
        if one.final is not None and one.interval is not None:
            reach = [[one.final - one.interval[0]], [one.interval[1] - one.final]]
            axes.errorbar([run.budget], [one.final], yerr=reach, fmt="D", color=colour, capsize=3, ms=4)
    axes.set(xscale="log", xlabel="budget (training FLOPs where known)", ylabel=metric.value)
    low, high = view(outlooks, running, finished)
    axes.set_ylim(low, high)
    axes.legend(fontsize=8)
    spent = [run.steps[-1] / run.end * run.budget for run in running if len(run.steps)]
    axes.set_xlim(left=min([*spent, *(x for x, _ in ends)], default=1.0) / 10)
    return as_svg(figure, command)


def view(
    outlooks: Sequence[Outlook], running: Sequence[Trajectory], finished: Sequence[Trajectory]
) -> tuple[float, float]:
    """What bears on the ends: the first steps of a curve would flatten everything else."""
    import numpy as np

    seen = [float(v) for one in outlooks for v in (*(one.interval or ()), one.latest) if np.isfinite(v)]
    seen += [run.result for run in finished if run.final is not None]
    seen += [
        float(v) for run in running for v in run.values[-max(1, len(run.values) // 2) :] if np.isfinite(v)
    ]
    margin = 0.05 * (max(seen) - min(seen) or 1.0)
    return min(seen) - margin, max(seen) + margin
