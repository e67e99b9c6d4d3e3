"""MLflow's file store, read as the text files it consists of.

mlruns/<experiment>/<run>/ holds meta.yaml, metrics/<key> (lines `timestamp value step`), params/<key> and
tags/<key>. MLflow itself no longer opens such a folder without a switch in the environment, and its client
brings thirty packages along; the layout has not changed since version 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.errors import CannotAnswer, WrongInput
from harness.laws.sources.table import Table, as_text
from harness.runs import Skipped

META = "meta.yaml"
STATUS = {"1": "running", "2": "scheduled", "3": "finished", "4": "failed", "5": "killed"}
"""RunStatus of MLflow's protocol, as meta.yaml stores it."""


def is_mlflow_meta(path: Path) -> bool:
    """Other tools have a meta.yaml too; MLflow's says where artifacts go."""
    return path.name == META and bool({"artifact_location", "artifact_uri"} & read_meta(path).keys())


def read_mlflow(root: Path) -> Table:
    """One row a run: params, tags and each metric's last value by their bare names.

    Where a name is used twice the metric wins, then the param. Raises CannotAnswer when no run is there.
    """
    rows: list[dict[str, str]] = []
    skipped: list[Skipped] = []
    for folder in run_folders(root):
        meta = read_meta(folder / META)
        if meta.get("lifecycle_stage") == "deleted":
            skipped.append(Skipped(meta["run_id"], "deleted in MLflow"))
        else:
            rows.append(run_row(folder, meta))
    if not rows:
        raise CannotAnswer(f"{root} is an MLflow folder without runs")
    return Table(path=root, rows=as_text(rows), skipped=tuple(skipped))


def run_folders(root: Path) -> Iterator[Path]:
    """Folders whose meta.yaml is of a run: of a store, one experiment or one run."""
    for file in sorted(root.rglob(META)):
        if ".trash" not in file.parts and {"run_id", "status"} <= read_meta(file).keys():
            yield file.parent


def run_row(folder: Path, meta: dict[str, str]) -> dict[str, str]:
    experiment = folder.parent / META
    status = meta["status"]
    return {
        "group": read_meta(experiment).get("name", "") if experiment.exists() else "",
        **{key: value for key, value in texts(folder / "tags") if not key.startswith("mlflow.")},
        **dict(texts(folder / "params")),
        **{key: last_value(folder / "metrics" / key, lines) for key, lines in texts(folder / "metrics")},
        "run_id": meta["run_id"],
        "run_name": meta.get("run_name", ""),
        "status": STATUS.get(status, status),
    }


def read_meta(path: Path) -> dict[str, str]:
    """The flat `key: value` lines that MLflow writes."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.split(": ", 1) for line in lines if ": " in line)
    return {key: value.strip().strip("'\"") for key, value in pairs}


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Key and text of every file; a key such as val/loss lies in a subfolder."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            key = file.relative_to(folder).as_posix()
            yield key, file.read_text(encoding="utf-8", errors="replace").strip()


def last_value(path: Path, lines: str) -> str:
    """The value at the highest step, the latest of several; a line that was cut off does not count. Raises
    WrongInput for a time stamp or a step that is no whole number."""
    logged = [line.split() for line in lines.splitlines()]
    whole = [parts for parts in logged if len(parts) >= 3]
    try:
        return max(whole, key=lambda parts: (int(parts[2]), int(parts[0])))[1] if whole else ""
    except ValueError as error:
        raise WrongInput(f"{path} is no log of MLflow (time stamp, value, step): {error}") from error
