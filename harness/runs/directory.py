"""Reading the files of one run, and of many."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from harness.errors import WrongInput
from harness.runs.files import (
    CONFIG,
    FAILURE,
    KILLED,
    METRICS,
    PLAN,
    RECORD,
    read_json,
    read_json_if_any,
    write_json,
)
from harness.runs.owner import read_owner
from harness.runs.record import RunRecord, Skipped, parse_record

TAIL_BYTES = 8192
MAX_ID = 300


class Status(Enum):
    """`interrupted` stopped of its own accord, asked to; `lost` vanished without a word. Both go on from
    their checkpoints. `killed` was given up on, and goes on only when asked. `queued` and `damaged` are
    what a sweep's ledger adds to what one run can say."""

    planned = "planned"
    queued = "queued"
    running = "running"
    interrupted = "interrupted"
    lost = "lost"
    failed = "failed"
    damaged = "damaged"
    killed = "killed"
    diverged = "diverged"
    done = "done"


FINISHED = (Status.done, Status.diverged, Status.killed)
"""Those that nothing more is to be done about."""


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run. Reading needs nothing; writing needs an `Attempt`."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def config(self) -> dict[str, Any]:
        value = read_json(self.path / CONFIG)
        if not isinstance(value, dict) or not isinstance(value.get("config"), dict) or "hash" not in value:
            raise WrongInput(f"{self.path / CONFIG} is not a frozen config")
        return value

    def record(self) -> RunRecord:
        """The finished run. Raises WrongInput when the record is missing, edited or of another form."""
        return parse_record(read_json(self.path / RECORD), self.path)

    def record_if_any(self) -> RunRecord | None:
        """The finished run, or None before it is. Raises as `record` does."""
        value = read_json_if_any(self.path / RECORD)
        return None if value is None else parse_record(value, self.path)

    def metrics(self) -> list[dict[str, Any]]:
        """Rows by (kind, step), the later of two wins; a line torn by a crash is passed over."""
        path = self.path / METRICS
        if not path.exists():
            return []
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                row = parse_metric(line)
                if row is not None:
                    rows[row["kind"], row["step"]] = row
        return sorted(rows.values(), key=lambda row: (row["step"], row["kind"]))

    def last_metric(self) -> dict[str, Any] | None:
        """The training row that was written last, read from the end of the file."""
        try:
            with (self.path / METRICS).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return None
        rows = (parse_metric(line) for line in reversed(lines))
        return next((row for row in rows if row is not None and row["kind"] == "train"), None)

    def status(self) -> Status:
        """From the files alone."""
        if (record := self.record_if_any()) is not None:
            return Status(record.status)
        owner = read_owner(self.path)
        if owner is not None and owner.is_alive(self.path):
            return Status.running
        if (self.path / KILLED).exists():
            return Status.killed
        if (self.path / FAILURE).exists():
            return Status.failed
        if owner is not None:
            return Status.interrupted if owner.ended else Status.lost
        return Status.planned


def write_frozen(
    run: RunDirectory, config_hash: str, frozen: dict[str, Any], planned_code_version: str = ""
) -> None:
    """Write config.json unless it is there and says the same of where the data lie.

    Raises WrongInput when the one that is there is damaged.
    """
    if (run.path / CONFIG).exists() and run.config().get("tokens_path") == frozen["tokens_path"]:
        return
    planned = {"planned_code_version": planned_code_version} if planned_code_version else {}
    write_json(run.path / CONFIG, {"hash": config_hash, **frozen, **planned})


def parse_metric(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("kind"), str)
    return row if whole else None


def run_directories(root: Path) -> Iterator[RunDirectory]:
    """Every run directory at or below `root` (a run, a sweep, or a folder of sweeps), in name order."""
    if (root / CONFIG).exists() or (root / RECORD).exists():
        yield RunDirectory(root)
        return
    for child in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        yield from run_directories(child)


def finished_records(root: Path) -> tuple[list[RunRecord], list[Skipped]]:
    """Records of all finished runs below `root`; what is unfinished or damaged is named, not hidden."""
    if not root.is_dir():
        raise WrongInput(f"{root} is not a folder; give runs= a sweep folder or a table")
    records: list[RunRecord] = []
    skipped: list[Skipped] = []
    for run in run_directories(root):
        try:
            status = run.status()
            if status is Status.done:
                record = run.record()
                usable = record.loss is not None and math.isfinite(record.loss)
                records.append(record) if usable else skipped.append(Skipped(run.run_id, "loss is missing"))
            else:
                skipped.append(Skipped(run.run_id, status.value))
        except WrongInput as error:
            skipped.append(Skipped(run.run_id, str(error)))
    return records, [*skipped, *unstarted(root)]


def unstarted(root: Path) -> list[Skipped]:
    """Cells of the plans at or below `root` that no attempt has begun."""
    plans = [plan for plan in sorted({root / PLAN, *root.glob(f"*/{PLAN}")}) if plan.exists()]
    return [
        Skipped(run_id, Status.planned.value)
        for plan in plans
        for run_id in planned_ids(plan)
        if not (plan.parent / run_id).exists()
    ]


def planned_ids(plan: Path) -> list[str]:
    """The run ids of a plan; a damaged line is the plan's reader's affair, not the analysis's."""
    with plan.open(encoding="utf-8", errors="replace") as lines:
        heads = [line[:MAX_ID].split('"run_id": "', 1) for line in lines]
    return [head[1].split('"', 1)[0] for head in heads if len(head) == 2]
