"""The noise floor of a sweep as a person reads it."""

from __future__ import annotations

from typing import Any

from harness.laws.seeds import SeedKind
from harness.report.terminal import print_lines, print_table, si


def print_noise(result: dict[str, Any]) -> None:
    """`result` is the JSON of a `laws.seeds.NoiseFloor`."""
    level = f"{result['level']:.0%} interval"
    rows = [
        (
            si(rung["params"]),
            si(rung["tokens"]),
            f"{rung['loss']:.4f}",
            str(rung["runs"]),
            *noise_row(kind, one),
        )
        for rung in result["rungs"]
        for kind, one in rung["noise"].items()
    ]
    rows += [("all", "", "", "", *noise_row(kind, one)) for kind, one in result["pooled"].items()]
    head = ("params", "tokens", "mean loss", "runs", "seeds of", "std of ln L", level, "repeats")
    print_table("how far seeds scatter the loss", head, rows)
    one = result["one_run"]
    print_lines(
        f"noise of one run: {one['std']:.2%} of the loss, from seeds of {one['of']}"
        if one
        else "noise of one run: not measured, no seed of init or data order was repeated",
        f"intervals of chi-square; params are {result['conventions']['params']}",
    )


def noise_row(kind: str, one: dict[str, Any]) -> tuple[str, ...]:
    low, high = one["interval"]
    name = SeedKind[kind].value
    return (name, f"{one['std']:.2%}", f"[{low:.2%}, {high:.2%}]", str(one["degrees_of_freedom"]))
