"""What every source of runs is read into: rows of text under column names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.laws.observations import FLOPS_GIVEN
from harness.runs import Skipped

Cells = dict[str, str]
"""One run: the text of every column. A missing value is the empty text."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The runs of one source. `skipped` are those that the source itself could not give."""

    path: Path
    rows: Sequence[Cells]
    skipped: tuple[Skipped, ...] = ()
    flops_kind: str = FLOPS_GIVEN

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0]) if self.rows else []


def as_text(rows: Sequence[dict[str, Any]]) -> list[Cells]:
    """Every row with every column; a missing value is the empty text."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{c: "" if row.get(c) is None else str(row[c]) for c in columns} for row in rows]
