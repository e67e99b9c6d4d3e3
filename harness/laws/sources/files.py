"""Tables in a file: CSV (also with semicolons, tabs or bars), JSONL or Parquet, one run a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from harness.errors import WrongInput
from harness.laws.sources.table import Cells, Table, as_text

Content = TypeVar("Content")
OTHER_SEPARATORS = ";\t|"
"""What separates the columns of a header that holds no comma."""


def read_file(path: Path) -> Table:
    return Table(path=path, rows=read_table(path))


def read_table(path: Path) -> list[Cells]:
    """All rows as text, by the file's extension. Raises WrongInput when it cannot be read."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise WrongInput(f"{path}: unknown kind of table; use .csv, .tsv, .jsonl or .parquet")
    rows = guarded(reader, path)
    if not rows:
        raise WrongInput(f"{path} holds no rows")
    return rows


def csv_header(path: Path) -> list[str]:
    """The column names of a CSV file; none when it is empty. Raises WrongInput when it cannot be read."""

    def first_row(path: Path) -> list[str]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return header_of(file)[0]

    return guarded(first_row, path)


def header_of(file: TextIO) -> tuple[list[str], str]:
    """The column names at the top of the file, without blanks around them, and what separates them."""
    names = next(csv.reader(file, skipinitialspace=True), [])
    separator = ","
    if len(names) == 1 and (found := [mark for mark in OTHER_SEPARATORS if mark in names[0]]):
        separator = found[0]
        names = next(csv.reader(names, delimiter=separator, skipinitialspace=True))
    return [name.strip() for name in names], separator


def guarded(read: Callable[[Path], Content], path: Path) -> Content:
    """`read(path)`, with whatever a damaged file makes of it as one line."""
    try:
        return read(path)
    except FileNotFoundError as error:
        raise WrongInput(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        raise WrongInput(f"{path} is not UTF-8 text, so no {path.suffix}") from error
    except (OSError, ValueError, csv.Error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WrongInput(f"{path} cannot be read as {path.suffix}: {reason}") from error


def csv_rows(path: Path) -> list[Cells]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        names, separator = header_of(file)
        refuse_twice(path, names)
        reader = csv.DictReader(file, names, restval="", delimiter=separator, skipinitialspace=True)
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise WrongInput(f"{path}: row {number} has more fields than the header's {len(row) - 1}")
    return rows


def refuse_twice(path: Path, names: Sequence[str]) -> None:
    """Raises WrongInput when a column comes twice; those without a name are row numbers and the like."""
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise WrongInput(f"{path} has the column {twice[0]!r} twice")


def jsonl_rows(path: Path) -> list[Cells]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("every line must be an object")
    return as_text([flat(row) for row in rows])


def parquet_rows(path: Path) -> list[Cells]:
    import pyarrow.parquet as parquet

    return as_text([flat(row) for row in parquet.read_table(path).to_pylist()])


def flat(row: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Objects inside a row become columns of their own, named by the way to them: config.lr."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found


READERS: dict[str, Callable[[Path], list[Cells]]] = {
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".parquet": parquet_rows,
}
