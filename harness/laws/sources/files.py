"""Tables in a file: CSV, JSONL or Parquet, one run a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from harness.errors import WrongInput
from harness.laws.sources.table import Cells, Table, as_text

Content = TypeVar("Content")
OTHER_SEPARATORS = ";\t|"


def read_file(path: Path) -> Table:
    return Table(path=path, rows=read_table(path))


def read_table(path: Path) -> list[Cells]:
    """All rows as text, by the file's extension. Raises WrongInput when it cannot be read."""
    readers = {".csv": csv_rows, ".jsonl": jsonl_rows, ".ndjson": jsonl_rows, ".parquet": parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise WrongInput(f"{path}: unknown kind of table; use .csv, .jsonl or .parquet")
    rows = guarded(reader, path)
    if not rows:
        raise WrongInput(f"{path} holds no rows")
    return rows


def csv_header(path: Path) -> list[str]:
    """The column names of a CSV file; none when it is empty. Raises WrongInput when it cannot be read."""

    def first_row(path: Path) -> list[str]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file, skipinitialspace=True), [])

    return guarded(first_row, path)


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
        reader = csv.DictReader(file, restval="", skipinitialspace=True)
        refuse_header(path, list(reader.fieldnames or []))
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise WrongInput(f"{path}: row {number} has more fields than the header's {len(row) - 1}")
    return rows


def refuse_header(path: Path, names: Sequence[str]) -> None:
    """Raises WrongInput when a column comes twice, or when commas do not separate the columns."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise WrongInput(f"{path} has the column {twice[0]!r} twice")
    if len(names) == 1 and (found := set(names[0]) & set(OTHER_SEPARATORS)):
        raise WrongInput(f"{path} is separated by {min(found)!r}; write it with commas")


def jsonl_rows(path: Path) -> list[Cells]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("every line must be an object")
    return as_text(rows)


def parquet_rows(path: Path) -> list[Cells]:
    import pyarrow.parquet as parquet

    return as_text(parquet.read_table(path).to_pylist())
