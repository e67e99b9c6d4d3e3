"""From the text of one run's cells to numbers, with a reason where a cell is none."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.errors import CannotAnswer, WrongInput
from harness.laws.config import LossUnit
from harness.laws.filters import number
from harness.laws.observations import Row
from harness.laws.sources.table import Cells

MISSING = {"", "none", "null", "n/a"}
NOT_FINITE = {"nan", "inf", "-inf", "infinity", "-infinity"}
FINISHED = {"", "done", "finished", "ok", "complete", "completed", "success", "succeeded"}
LABELLED = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?\s*[a-z%][a-z /%]*|[-+]?\d{1,3}(,\d{3})+(\.\d+)?", re.I)
"""A number with a unit or an SI letter, or with thousands separators."""
DECIMAL_COMMA = re.compile(r"[-+]?[\d.]*,\d+(e[-+]?\d+)?", re.I)
OTHER_UNITS = {
    r"(?<!log)(?<!log[ _-])(perplexity|(?<![a-z])ppl(?![a-z]))": "the logarithm of the perplexity",
    r"(?<![a-z])bits(?![a-z])": "bits times ln 2",
}
"""In the name of a loss, and what to do about it."""
ONE_OF_A_KIND = ("loss_kind", "corpus_hash", "corpus", "dataset", "tokenizer_hash", "tokenizer")
"""Losses are comparable only where these are equal."""


def label_of(cells: Cells, otherwise: str) -> str:
    return cells.get("run_id") or otherwise


def value_of(cells: Cells, column: str) -> float:
    text = cells.get(column)
    found = number(text) if text else None
    return math.nan if found is None else found


def number_fault(label: str, cells: Cells, columns: Sequence[str]) -> str:
    """Why one of the columns is no number; empty when all are."""
    for column in columns:
        if math.isnan(value_of(cells, column)):
            return cell_fault(label, cells, column)
    return ""


def cell_fault(label: str, cells: Cells, column: str) -> str:
    """Why a cell is no finite number.

    Raises WrongInput on a labelled number such as 1.3B: labels are rounded (of the runs of Muennighoff et
    al. 2305.16264 the "25m" have 35.5 million parameters), so the exact count has to be given. A comma in a
    number is not guessed at either.
    """
    text = cells.get(column, "").strip()
    if text.lower() in MISSING:
        return f"{column} is missing"
    if text.lower() in NOT_FINITE:
        return f"{column} is not finite"
    if LABELLED.fullmatch(text):
        raise WrongInput(
            f"{column} is {text!r} at {label}; write the plain number, without unit or separators"
        )
    if DECIMAL_COMMA.fullmatch(text):
        raise WrongInput(f"{column} is {text!r} at {label}; write decimals with a point")
    return f"{column} is not a number"


def row_of_cells(label: str, cells: Cells, params_column: str = "") -> Row:
    """Without `params_column` a row of FLOPs and a loss alone."""
    sized = bool(params_column)
    numbers = ("loss", params_column, "tokens") if sized else ("loss", "flops")
    loss = value_of(cells, "loss")
    params, tokens = (value_of(cells, name) if sized else math.nan for name in (params_column, "tokens"))
    seeds = [cells.get(name, "") for name in ("seed", "data_seed", "validation_seed")]
    lr, batch_tokens = (positive_or_none(cells, name) for name in ("lr", "batch_tokens"))
    flops = ("flops",) if cells.get("flops") else ()
    step = value_of(cells, "step")
    return Row(
        name=label,
        params=params,
        tokens=tokens,
        flops=value_of(cells, "flops") if flops else None,
        loss=loss,
        group=cells.get("group", ""),
        seed="/".join(seeds).rstrip("/"),
        corpus_hash=cells.get("corpus_hash", ""),
        tokenizer_hash=cells.get("tokenizer_hash", ""),
        unique_tokens=unique_tokens_of(cells, tokens),
        weight=value_of(cells, "weight") if cells.get("weight") else 1.0,
        cluster=cells.get("cluster", ""),
        step=step if math.isfinite(step) else 0.0,
        lr=lr,
        batch_tokens=batch_tokens,
        fault=fault_of(cells) or number_fault(label, cells, (*numbers, *flops)),
        sized=sized,
    )


def positive_or_none(cells: Cells, column: str) -> float | None:
    found = value_of(cells, column)
    return found if math.isfinite(found) and found > 0 else None


def unique_tokens_of(cells: Cells, tokens: float) -> float | None:
    """From the column, else tokens over epochs; None where neither is known."""
    unique, epochs = value_of(cells, "unique_tokens"), value_of(cells, "epochs")
    found = tokens / epochs if math.isnan(unique) and epochs > 0 else unique
    return found if math.isfinite(found) else None


def fault_of(cells: Cells) -> str:
    """Why the table itself says that a row is not a finished run."""
    for flag in ("diverged", "unfinished"):
        if cells.get(flag, "").lower() in ("1", "1.0", "true", "yes"):
            return flag
    status = cells.get("status", "").lower()
    return "" if status in FINISHED else status


def loss_unit_of(rows: Sequence[Cells], loss_column: str) -> LossUnit:
    """Bits per byte when the column or loss_kind says so, else nats per token. Raises WrongInput when it
    says another unit."""
    said = f"{loss_column} {rows[0].get('loss_kind', '') if rows else ''}".lower()
    if re.search(r"bits.per.byte|bits/byte|\bbpb", said):
        return LossUnit.bits_per_byte
    if other := next((unit for unit in OTHER_UNITS if re.search(unit, said)), None):
        raise WrongInput(
            f"the loss is read from {said.strip()!r}; write it in nats per token: {OTHER_UNITS[other]}"
        )
    return LossUnit.nats_per_token


def refuse_mixtures(path: Path, rows: Sequence[Cells]) -> None:
    """Raises CannotAnswer when losses differ in kind, corpus or tokenizer, and says how to choose one."""
    for column in ONE_OF_A_KIND:
        counts = Counter(row.get(column, "") for row in rows).most_common()
        if len(counts) > 1:
            shown = ", ".join(f"{count} {value[:40] or '(unknown)'}" for value, count in counts[:4])
            raise CannotAnswer(
                f"{path}: rows of different {column} cannot share a law ({shown}); "
                f'choose one, such as where=["{column}={next(v for v, _ in counts if v)}"]'
            )
