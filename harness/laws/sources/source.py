"""Which kind of source a path is, found from what lies there, and its runs as a table.

No flag says what a path holds. A file is told by its extension and, for CSV, its header; a folder by the
first of its files, parents before children, that only one kind of source writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

from harness.errors import WrongInput
from harness.laws.sources.files import csv_header, read_file
from harness.laws.sources.mlflow import is_mlflow_meta, read_mlflow
from harness.laws.sources.records import is_run_file, read_records
from harness.laws.sources.table import Table
from harness.laws.sources.tensorboard import is_event_file, read_tensorboard
from harness.laws.sources.wandb import is_wandb_history, is_wandb_runs, read_wandb_history, read_wandb_runs


class Source(Enum):
    """Every kind of source, by the name that messages use."""

    records = "run directories"
    tensorboard = "TensorBoard event files"
    mlflow = "MLflow's mlruns"
    csv = "a CSV table"
    wandb_runs = "a W&B export of the runs table"
    wandb_history = "a W&B export of a chart"
    jsonl = "a JSONL table"
    parquet = "a Parquet table"


READERS: dict[Source, Callable[[Path], Table]] = {
    Source.records: read_records,
    Source.tensorboard: read_tensorboard,
    Source.mlflow: read_mlflow,
    Source.csv: read_file,
    Source.wandb_runs: read_wandb_runs,
    Source.wandb_history: read_wandb_history,
    Source.jsonl: read_file,
    Source.parquet: read_file,
}
UNDERSTOOD = (
    "run directories, TensorBoard or MLflow folders, .csv (W&B exports too), .tsv, .jsonl or .parquet"
)


def load(path: Path) -> Table:
    """The runs at `path`. Raises WrongInput when it is missing, damaged or of no known kind."""
    return READERS[source_of(path)](path)


def source_of(path: Path) -> Source:
    """The kind of source, by content. Raises WrongInput, listing what is understood, when it is none."""
    if path.is_dir():
        return source_of_folder(path)
    if not path.exists():
        raise WrongInput(f"runs={path} does not exist; give {UNDERSTOOD}")
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return Source.jsonl
        case ".parquet":
            return Source.parquet
        case ".csv" | ".tsv":
            header = csv_header(path)
            if is_wandb_runs(header):
                return Source.wandb_runs
            return Source.wandb_history if is_wandb_history(header) else Source.csv
    if is_event_file(path):
        raise WrongInput(f"{path} is one TensorBoard event file; give the folder it lies in")
    raise WrongInput(f"{path} is no table of runs; give {UNDERSTOOD}")


def source_of_folder(root: Path) -> Source:
    """The kind that the first telling file below `root` belongs to."""
    empty = True
    for file in files_below(root):
        empty = False
        if is_run_file(file):
            return Source.records
        if is_event_file(file):
            return Source.tensorboard
        if is_mlflow_meta(file):
            return Source.mlflow
    what = "is empty" if empty else "holds no runs that are understood here"
    raise WrongInput(f"runs={root} {what}; give {UNDERSTOOD}")


def files_below(root: Path) -> Iterator[Path]:
    """Every file, those of a folder before those of its subfolders, in name order."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(files))
