"""Runs of different kinds of model or training do not share a law."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.errors import CannotAnswer, WrongInput
from harness.laws.cells import value_of
from harness.laws.sources.table import Cells

GROUPED_HEADS = "n_kv_heads"
MAY_BE_NONE = ("window", "full_every", "attention_every", "state_size")
"""Columns in which an empty cell says that the run has no such thing; in the others it is not known."""
VARIANTS = (
    *("mixer", "recurrence", "prelude", "coda", *MAY_BE_NONE, GROUPED_HEADS),
    *("optimizer", "parametrization", "schedule", "context", "vocab_size"),
)
"""What a sweep of sizes and lengths holds still; learning rates, batches and seeds are no variants."""


def refuse_variants(path: Path, rows: Sequence[Cells], pooled: Sequence[str] = ()) -> None:
    """Raises CannotAnswer when runs differ in one of `VARIANTS`, with how to choose; WrongInput for a name
    in `pooled`, those that may differ, that is none of them."""
    if unknown := sorted(set(pooled) - set(VARIANTS)):
        raise WrongInput(f"pooled: {unknown[0]!r} is none of {', '.join(VARIANTS)}")
    present = set(rows[0]) if rows else set()
    for column in VARIANTS:
        if column in pooled or column not in present:
            continue
        counts = Counter(said for row in rows if (said := variant_of(row, column))).most_common()
        if len(counts) > 1:
            shown = ", ".join(f"{value} on {count}" for value, count in counts[:4])
            raise CannotAnswer(
                f"{path}: runs of different {label_of(column)} cannot share a law ({shown}); "
                f"choose with {choice(column, rows)}, or fit them together with pooled=[{column}]"
            )


def variant_of(row: Cells, column: str) -> str:
    """What the run is in this respect; empty where it is not known."""
    if column == GROUPED_HEADS:
        ratio = value_of(row, "n_heads") / (value_of(row, GROUPED_HEADS) or float("nan"))
        return f"{ratio:g}" if ratio > 0 else ""
    return row.get(column) or ("none" if column in MAY_BE_NONE else "")


def label_of(column: str) -> str:
    return "query heads per key head" if column == GROUPED_HEADS else column


def choice(column: str, rows: Sequence[Cells]) -> str:
    """A filter that can be typed; an empty cell passes != alone."""
    value = next(row[column] for row in rows if row.get(column))
    return f'where=["{column}={value}"] or where=["{column}!={value}"]'
