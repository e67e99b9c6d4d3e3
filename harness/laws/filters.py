"""Row filters such as group=rpj or loss<3.5: parsed here, never evaluated as code."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import WrongInput
from harness.laws.sources.table import Cells

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
FILTER = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")


@dataclass(frozen=True)
class Filter:
    """One condition on a column, such as loss<3.5. Numbers compare as numbers, else as text."""

    column: str
    symbol: str
    value: str

    @functools.cached_property
    def bound(self) -> float | None:
        """The value as a number, if it is one."""
        return number(self.value)

    def keeps(self, cell: str) -> bool:
        """An empty cell passes `!=` alone."""
        left = None if self.bound is None else number(cell)
        if left is not None:
            return OPERATORS[self.symbol](left, self.bound)
        if self.symbol in ("=", "!="):
            return OPERATORS[self.symbol](cell, self.value)
        return False

    def __str__(self) -> str:
        return f"{self.column}{self.symbol}{self.value}"


def parse_filter(text: str) -> Filter:
    """Raises WrongInput when the text is not `column OP value`."""
    match = FILTER.fullmatch(text)
    if match is None or match[3] == "":
        raise WrongInput(f"where: cannot read {text!r}; write column=value, or use != < <= > >=")
    found = Filter(match[1], match[2], match[3])
    if found.symbol not in ("=", "!=") and number(found.value) is None:
        raise WrongInput(f"where: {text!r} compares by size, so {found.value!r} must be a number")
    return found


def number(text: str) -> float | None:
    """The finite number a cell holds, if any."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def first_refusal(row: Cells, filters: Sequence[Filter]) -> Filter | None:
    """The first filter that the row does not pass, if any."""
    return next((f for f in filters if not f.keeps(row[f.column])), None)
