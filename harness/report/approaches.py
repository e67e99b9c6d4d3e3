"""The three approaches in one table, with what was taken off the parabolas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.laws.approaches import Answer, Approach
from harness.report.fits import number, span
from harness.report.terminal import print_lines, print_table, si

COLUMNS = ("approach", "exponent a", "FLOPs", "params", "tokens", "tokens/param")


def print_approaches(answers: Sequence[Answer], level: float) -> None:
    rows = [row for answer in answers for row in answer_rows(answer)]
    print_table(f"three approaches, {level:.0%} intervals", COLUMNS, rows)
    print_lines(*(line for answer in answers for line in remarks(answer)))


def answer_rows(answer: Answer) -> list[tuple[str, ...]]:
    """A row a budget; the exponent stands in the first."""
    name = f"{answer.approach.value} {answer.approach.name}"
    exponent = number(answer.exponent_a)
    if answer.interval:
        exponent += f" {span(answer.interval, '.3f')}"
    cells = [optimum_cells(o) for o in answer.optimum] or [("-",) * 4]
    return [((name, exponent) if at == 0 else ("", "")) + cell for at, cell in enumerate(cells)]


def optimum_cells(optimum: dict[str, Any]) -> tuple[str, ...]:
    ends = optimum["interval"] or {}

    def shown(key: str, form: Callable[[float], str]) -> str:
        if key not in ends:
            return form(optimum[key])
        low, high = ("open" if end is None else form(end) for end in ends[key])
        return f"{form(optimum[key])} [{low}, {high}]"

    ratio = shown("tokens_per_param", lambda x: f"{x:.3g}")
    return f"{optimum['flops']:.3g}", shown("params", si), shown("tokens", si), ratio


def remarks(answer: Answer) -> list[str]:
    """What a reader must know of one approach: why it cannot answer, and the bias of its parabolas."""
    label = f"approach {answer.approach.value}"
    lines = [f"{label} is not identified: {reason}" for reason in answer.reasons]
    if answer.approach is Approach.isoflop and answer.exponent_a is not None:
        lines.append(f"{label}: {vertex_bias(answer.details)}")
    return lines


def vertex_bias(details: dict[str, Any]) -> str:
    biases = [s["bias"] for s in details["slices"] if "bias" in s]
    bound = "without bound" if details["bias_bound"] is None else f"at most {details['bias_bound']:.2%}"
    return (
        f"the vertices of {len(biases)} parabolas miss D* by {min(biases):+.2%} to {max(biases):+.2%} "
        f"({bound}); taken off above; without that a is {details['raw_exponent_a']:.4g} "
        f"{span(details['raw_interval'], '.3f')}"
    )
