"""Column names: the standard ones, a table's own, and which of them holds N."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from harness.errors import WrongInput
from harness.laws.cells import value_of
from harness.laws.config import ParamsKind
from harness.laws.sources.table import Cells, Table

STANDARD = (
    *("run_id", "group", *(f"params_{kind.value}" for kind in ParamsKind), "tokens", "unique_tokens"),
    *("epochs", "flops", "loss", "loss_kind", "seed", "data_seed", "validation_seed", "corpus"),
    *("corpus_hash", "tokenizer", "tokenizer_hash", "status", "diverged", "unfinished", "step"),
    *("weight", "cluster", "lr", "batch_tokens"),
)
SHOWN_COLUMNS = 30
VAGUE_PARAMS = {
    *("n", "params", "parameters", "n_params", "num_params", "param_count"),
    *("model_params", "model_size"),
}
"""Column names for N that leave open whether embeddings and the head are counted."""


class SizeUnknown(WrongInput):
    """The table knows no count of N: each of its columns is empty on every row."""


def mapped(table: Table, columns: Mapping[str, str], names: Sequence[str] = ()) -> Table:
    """The table with the standard names beside its own; `names` may be mapped as well.

    Raises WrongInput for a name that is not known here, or a column that the table does not have.
    """
    known = (*STANDARD, *names)
    for name, own in columns.items():
        if name not in known:
            raise WrongInput(f"columns: {name!r} is no standard name{perhaps(name, known)}; {listed(known)}")
        if own not in table.columns:
            raise WrongInput(f"columns={{{name}: {own}}}: {missing(table, own)}")
    owners = list(columns.values())
    if twice := sorted({own for own in owners if owners.count(own) > 1}):
        both = " and ".join(name for name, own in columns.items() if own == twice[0])
        raise WrongInput(f"columns: {twice[0]!r} cannot be both {both}")
    if not columns:
        return table
    rows = [{**row, **{name: row[own] for name, own in columns.items()}} for row in table.rows]
    return replace(table, rows=rows)


def with_body_and_head(table: Table) -> Table:
    """With the column params_body_and_head where the body and the head, or the embedding that serves as
    one, are given apart."""
    vocabulary = ("params_head", "params_embedding")
    names = {"params_non_embedding", *vocabulary} & set(table.columns)
    if "params_body_and_head" in table.columns or not names > {"params_non_embedding"}:
        return table

    def count(row: Cells) -> str:
        matrices = [value_of(row, name) for name in vocabulary]
        head = next((value for value in matrices if value > 0), math.nan)
        total = value_of(row, "params_non_embedding") + head
        return repr(total) if math.isfinite(total) else ""

    rows = [{**row, "params_body_and_head": count(row)} for row in table.rows]
    return replace(table, rows=rows)


def need(table: Table, names: Iterable[str]) -> None:
    """Raises WrongInput when the table lacks one of these columns."""
    for name in names:
        if name not in table.columns:
            raise WrongInput(missing(table, name))


def missing(table: Table, name: str) -> str:
    hint = f"; if another column is meant, add columns={{{name}: ITS_NAME}}" if name in STANDARD else ""
    if name == "tokens":
        hint += ", else write one: steps x batch, params x tokens per parameter, or flops / (6 params)"
    return f"{table.path} has no column {name!r}{perhaps(name, table.columns)}; {listed(table.columns)}{hint}"


def params_column_of(table: Table, params: ParamsKind) -> str:
    """The column of N. Raises WrongInput when there is none, or none that says what it counts."""
    name = f"params_{params.value}"
    if name in table.columns:
        return name
    if others := [kind.value for kind in ParamsKind if f"params_{kind.value}" in table.columns]:
        raise WrongInput(
            f"{table.path} has no column {name!r} but params_{others[0]}; add {choose(others[0])}"
        )
    if vague := [column for column in table.columns if column.lower() in VAGUE_PARAMS]:
        kinds = " or ".join(f"columns={{params_{kind.value}: {vague[0]}}}" for kind in ParamsKind)
        raise WrongInput(f"{table.path}: {vague[0]!r} does not say which parameters it counts; write {kinds}")
    raise WrongInput(missing(table, name))


def empty_params(table: Table, rows: Sequence[Cells], name: str) -> WrongInput:
    """What to raise when `name` is empty: `SizeUnknown` when every count of N is."""
    others = [k.value for k in ParamsKind if any(row.get(f"params_{k.value}") for row in rows)]
    advice = f"add {choose(others[0])}" if others else "a law of N and D cannot be fitted to it"
    said = f"{table.path}: {name} is empty on all {len(rows)} rows; {advice}"
    return WrongInput(said) if others else SizeUnknown(said)


def choose(kind: str) -> str:
    return f"fit.params={kind} (forecast.params={kind} for a forecast)"


def perhaps(name: str, known: Sequence[str]) -> str:
    close = [one for one in known if one.lower() == name] or difflib.get_close_matches(name, known, n=1)
    return f", perhaps {close[0]!r}" if close else ""


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return f"there are {', '.join(names[:SHOWN_COLUMNS])}{more}"
