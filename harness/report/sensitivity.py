"""The sensitivity of an answer as a table, and as a tornado: one bar per choice, the widest on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.fits import number, span
from harness.report.terminal import print_lines, print_table, si

COLUMNS = ("choice", "n", "status", "a", "N*", "D*", "D*/N*", "swing", "loss")


def print_sensitivity(result: dict[str, Any]) -> None:
    """`result` is the JSON of a `laws.sensitivity.Sensitivity`."""
    flops, conventions = result["target"]["flops"], result["conventions"]
    title = f"sensitivity at {flops:.3g} FLOPs ({result['target']['convention']}), one choice at a time"
    all_rows = (result["base"], *result["rows"])
    print_table(title, COLUMNS, [table_row(row) for row in all_rows])
    within = result["range"]
    print_lines(
        f"N* and D*/N* count {conventions['params']} parameters in every row; a is of each fit's own N",
        f"range over {within['fits']} identified fits: "
        f"D*/N* {span(within['tokens_per_param'], '.3g')}, N* {si_span(within['params'])}, "
        f"D* {si_span(within['tokens'])}, a {span(within['exponent_a'], '.3f')}, "
        f"loss {span(within['loss'], '.4f')}",
        f"not in the range: {within['not_identified']} not identified, {within['not_fitted']} not fitted, "
        "and the rounded constants",
        *(f"- {title_of(row)}: {row['reason'].split(';')[0]}" for row in all_rows if row["reason"]),
    )


def title_of(row: dict[str, Any]) -> str:
    return f"{row['choice']}: {row['alternative']}"


def table_row(row: dict[str, Any]) -> tuple[str, ...]:
    swing = row["swing"]
    return (
        title_of(row),
        str(row["n"]) if row["n"] else "-",
        row["status"].replace("_", " "),
        number(row["exponent_a"]),
        "-" if row["params"] is None else si(row["params"]),
        "-" if row["tokens"] is None else si(row["tokens"]),
        "-" if row["tokens_per_param"] is None else f"{row['tokens_per_param']:.3g}",
        "-" if swing is None else f"x{swing:.3g}",
        "-" if row["loss"] is None else f"{row['loss']:.4f}",
    )


def si_span(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"[{si(interval[0])}, {si(interval[1])}]"


def tornado_figure(result: dict[str, Any], command: str = "") -> str:
    """SVG: D*/N* under each choice against that of the user's own setting. Fits that are not identified,
    and the rounded constants, are hollow: they are not in the range."""
    from harness.report.figures import as_svg, new_figure

    rows = [row for row in reversed(result["rows"]) if row["tokens_per_param"] is not None]
    base = result["base"]["tokens_per_param"]
    figure, axes = new_figure(height=1.2 + 0.22 * len(rows))
    for at, row in enumerate(rows):
        low, high = sorted((base, row["tokens_per_param"]))
        inside = row["in_range"]
        axes.barh(at, high - low, left=low, height=0.7, color="C0" if inside else "none", edgecolor="C0")
    axes.axvline(base, color="black", lw=0.8)
    axes.set_yticks(range(len(rows)), [title_of(row) for row in rows], fontsize=7)
    conventions, target = result["conventions"], result["target"]
    axes.set(xscale="log")
    axes.use_sticky_edges = False
    axes.margins(x=0.05)
    axes.set_xlabel(
        f"tokens per parameter ({conventions['params']})\nat {target['flops']:.3g} FLOPs "
        f"({target['convention']}); loss in {conventions['loss']}",
        fontsize=8,
    )
    return as_svg(figure, command)
