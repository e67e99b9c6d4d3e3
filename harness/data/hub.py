"""Documents through `datasets`: a name on the hub, or files and saved datasets on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.data.corpus import Document
from harness.data.text_dir import checked_text
from harness.errors import WrongInput

# A single file is opened with the builder of its format.
BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".arrow": "arrow"}


def is_local(path: str) -> bool:
    """A path on this machine, as opposed to a hub name such as `owner/name`."""
    return path.startswith(("/", ".", "~")) or path.count("/") > 1 or Path(path).exists()


def documents(
    path: str, config_name: str | None, split: str, field: str, streaming: bool
) -> Iterator[Document]:
    """Rows of one split, named by row; reads from the hub only when `path` is no local path."""
    rows = _open(path, config_name, split, streaming)
    columns = rows.column_names
    if columns is not None and field not in columns:
        raise WrongInput(f"dataset {path} has no column {field!r} but {', '.join(columns)}: set corpus.field")
    try:
        for index, row in enumerate(rows):
            if field not in row:
                raise WrongInput(
                    f"dataset {path} has no column {field!r} but {', '.join(row)}: set corpus.field"
                )
            yield Document(f"{path}:{index}", checked_text(row[field], f"{path} row {index}", field))
    except (ValueError, OSError) as error:
        raise _refusal(path, error) from None


def _open(path: str, config_name: str | None, split: str, streaming: bool) -> Any:
    import datasets

    datasets.disable_progress_bars()
    local = Path(path).expanduser()
    if is_local(path) and not local.exists():
        raise WrongInput(f"dataset {path} does not exist on this machine: set corpus.path")
    try:
        if local.is_dir() and _saved(local):
            return _saved_split(datasets.load_from_disk(str(local)), path, split)
        if local.is_file():
            if local.suffix not in BUILDERS:
                raise WrongInput(f"dataset {path} is none of {', '.join(BUILDERS)}: set corpus.path")
            builder, files = BUILDERS[local.suffix], str(local)
            return datasets.load_dataset(builder, data_files={split: files}, split=split, streaming=streaming)
        where = str(local) if local.exists() else path
        return datasets.load_dataset(where, config_name, split=split, streaming=streaming)
    # `datasets` reports a missing name, config, split, file or network in many exception types.
    except (OSError, ValueError, RuntimeError, LookupError, datasets.exceptions.DatasetsError) as error:
        raise _refusal(path, error) from None


def _saved(folder: Path) -> bool:
    return (folder / "state.json").exists() or (folder / "dataset_dict.json").exists()


def _saved_split(saved: Any, path: str, split: str) -> Any:
    if not isinstance(saved, dict):
        return saved
    if split not in saved:
        raise WrongInput(f"dataset {path} has no split {split!r} but {', '.join(saved)}: set corpus.split")
    return saved[split]


def _refusal(path: str, error: Exception) -> WrongInput:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return WrongInput(f"dataset {path} cannot be read ({reason}): check corpus.path, config_name and split")


def fingerprint(path: str) -> str:
    """Names, sizes and times of local files; for a hub name the name alone: looking costs a download."""
    local = Path(path).expanduser()
    digest = hashlib.sha256(path.encode())
    if local.exists():
        for file in sorted([local] if local.is_file() else local.rglob("*")):
            stat = file.stat()
            if file.is_file():
                digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
