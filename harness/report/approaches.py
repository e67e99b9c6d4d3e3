"""The three approaches in one table, with what was taken off the parabolas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from harness.laws.approaches.compare import Answer, Approach
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
    """What a reader must know of one approach: why it cannot answer, what it left out, and its bias."""
    label = f"approach {answer.approach.value}"
    lines = [f"{label} is not identified: {reason}" for reason in answer.reasons]
    if answer.exponent_a is None:
        return lines
    match answer.approach:
        case Approach.envelope:
            lines.append(f"{label}: {envelope_census(answer.details)}")
        case Approach.isoflop:
            lines += [f"{label}: {text(answer.details)}" for text in (slice_census, vertex_bias)]
    return lines


def envelope_census(details: dict[str, Any]) -> str:
    budgets = details["budgets"]
    usable = sum(b["usable"] for b in budgets)
    noise = f"noise {details['residual']:.2%} of the loss"
    return f"the best size lies between others at {usable} of {len(budgets)} budgets; {noise}"


def slice_census(details: dict[str, Any]) -> str:
    """How many slices count, and why the others do not."""
    faults = Counter(s["fault"] for s in details["slices"])
    usable = faults.pop("", 0)
    left_out = "".join(f"; {fault} in {count}" for fault, count in faults.items())
    tolerance = f"within {details['budget_tolerance']:.0%} of a budget"
    return f"{usable} of {len(details['slices'])} slices of runs {tolerance} have a usable minimum{left_out}"


def vertex_bias(details: dict[str, Any]) -> str:
    biases = [s["bias"] for s in details["slices"] if "bias" in s]
    bound = "without bound" if details["bias_bound"] is None else f"at most {details['bias_bound']:.2%}"
    return (
        f"the vertices of {len(biases)} parabolas miss D* by {min(biases):+.2%} to {max(biases):+.2%} "
        f"({bound}); taken off above; without that a is {details['raw_exponent_a']:.4g} "
        f"{span(details['raw_interval'], '.3f')}"
    )
