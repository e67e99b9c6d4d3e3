"""The run directory: the only contract between training and analysis.

runs/<sweep>/<run>/
    config.json       resolved and frozen when the run was planned, with its hash
    provenance.json   code, package versions, hardware, corpus and tokenizer hashes
    attempt.json      who owns the run now (host, pid, start time, token); replaced by a later attempt
    metrics.jsonl     append-only, one object a line; a step that was logged twice counts once, the later
    failure.json      why the last attempt ended badly; removed when the run finishes
    record.json       written once, atomically, last
    checkpoints/
"""

from __future__ import annotations

import json
import math
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from harness.errors import CannotAnswer, HarnessError, WrongInput

CONFIG, PROVENANCE, METRICS = "config.json", "provenance.json", "metrics.jsonl"
ATTEMPT, FAILURE, RECORD = "attempt.json", "failure.json", "record.json"


class Status(Enum):
    planned = "planned"
    running = "running"
    interrupted = "interrupted"
    failed = "failed"
    diverged = "diverged"
    done = "done"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a finished run says of itself. Losses are validation losses in nats per token."""

    run_id: str
    group: str
    status: str
    params_total: int
    params_non_embedding: int
    params_embedding: int
    params_head: int
    tokens: int
    unique_tokens: int
    epochs: float
    steps: int
    flops: float
    loss: float | None
    loss_kind: str
    bits_per_byte: float | None
    train_loss: float | None
    lr: float
    batch_tokens: int
    schedule: str
    optimizer: str
    width: int
    depth: int
    n_heads: int
    context: int
    vocab_size: int
    seed: int
    data_seed: int
    precision: str
    attention: str
    compiled: bool
    corpus_hash: str
    tokenizer_hash: str
    config_hash: str
    code_version: str
    reason: str = ""
    train_seconds: float = 0.0
    tokens_per_second: float = 0.0
    attempts: int = 1
    finished_at: str = ""

    MEASURED = ("train_seconds", "tokens_per_second", "attempts", "finished_at", "code_version")

    def science(self) -> dict[str, Any]:
        """Everything that must not depend on the clock, the machine's load or interruptions."""
        return {k: v for k, v in asdict(self).items() if k not in self.MEASURED}


@dataclass(frozen=True)
class Skipped:
    """A run directory or row that was left out, and why."""

    name: str
    reason: str


class Superseded(HarnessError):
    """Another attempt took over this run; this one must write no more."""

    exit_code = 1


# --- reading and writing whole files -----------------------------------------------------------------


def write_json(path: Path, value: Any) -> None:
    """Replace `path` atomically: a reader sees the old file or the new one, also after a crash."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write beside, flush to disk, rename. A full disk leaves the old file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise WrongInput(
            f"cannot write {path}: {error.strerror}; free some space or check permissions"
        ) from error


def read_json(path: Path) -> Any:
    """The file's value. Raises WrongInput naming the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WrongInput(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WrongInput(f"{path} is damaged: {error}") from error


# --- one run ------------------------------------------------------------------------------------------


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
        if not isinstance(value, dict) or "hash" not in value or "config" not in value:
            raise WrongInput(f"{self.path / CONFIG} is not a frozen config")
        return value

    def record(self) -> RunRecord:
        """The finished run. Raises WrongInput when the record is missing, edited or of another form."""
        return parse_record(read_json(self.path / RECORD), self.path)

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

    def status(self) -> Status:
        """From the files alone."""
        if (self.path / RECORD).exists():
            return Status(self.record().status)
        owner = read_owner(self.path)
        if owner is not None and owner_is_alive(owner):
            return Status.running
        if (self.path / FAILURE).exists():
            return Status.failed
        if owner is not None:
            return Status.interrupted
        return Status.planned


def parse_metric(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("kind"), str)
    return row if whole else None


def parse_record(value: Any, where: Path) -> RunRecord:
    names = {f.name for f in fields(RunRecord)}
    required = {f.name for f in fields(RunRecord) if f.name not in ("reason", *RunRecord.MEASURED)}
    if not isinstance(value, dict):
        raise WrongInput(f"{where / RECORD} is not an object")
    sealed = value.get("hash")
    body = {k: v for k, v in value.items() if k != "hash"}
    if missing := sorted(required - body.keys()):
        raise WrongInput(f"{where / RECORD} lacks {', '.join(missing)}")
    if unknown := sorted(body.keys() - names):
        raise WrongInput(f"{where / RECORD} has unknown fields: {', '.join(unknown)}")
    if sealed != content_hash(body):
        raise WrongInput(f"{where / RECORD} was edited after it was written (its hash does not match)")
    return RunRecord(**body)


def content_hash(value: Any) -> str:
    """SHA-256 over canonical JSON (sorted keys, no spaces)."""
    import hashlib

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- ownership ------------------------------------------------------------------------------------------


def process_start(pid: int) -> str | None:
    """An identifier of a living process that a reused pid does not share; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = stat.rsplit(")", 1)[1].split()
    return None if after_name[0] == "Z" else after_name[19]


def read_owner(run: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads((run / ATTEMPT).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return owner if isinstance(owner, dict) and "token" in owner else None


def owner_is_alive(owner: dict[str, Any]) -> bool:
    """Whether the owning process still runs on this host; an owner on another host counts as gone only
    through the scheduler, so here it counts as alive until its attempt says it ended."""
    if owner.get("ended"):
        return False
    if owner.get("host") != socket.gethostname():
        return True
    return process_start(int(owner.get("pid", -1))) == owner.get("process_start")


@dataclass(frozen=True)
class Attempt:
    """The right to write one run directory. A later attempt supersedes it; `check` notices."""

    run: RunDirectory
    token: str
    number: int

    def check(self) -> None:
        """Raises Superseded when another attempt has taken over."""
        owner = read_owner(self.run.path)
        if owner is None or owner["token"] != self.token:
            raise Superseded(f"{self.run.path} was taken over by another attempt; this one stops")

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Append whole lines in one write. Raises WrongInput when the disk is full."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        path = self.run.path / METRICS
        try:
            with path.open("ab+") as file:
                file.write(torn_line_end(file) + text.encode())
        except OSError as error:
            raise WrongInput(
                f"cannot write {path}: {error.strerror}; free some space and start again"
            ) from error

    def finish(self, record: RunRecord) -> None:
        self.check()
        body = asdict(record)
        write_json(self.run.path / RECORD, {**body, "hash": content_hash(body)})
        (self.run.path / FAILURE).unlink(missing_ok=True)
        self.end()

    def fail(self, reason: str) -> None:
        self.check()
        write_json(self.run.path / FAILURE, {"reason": reason, "attempt": self.number})
        self.end()

    def end(self) -> None:
        """Say that this attempt is over, so that another host need not guess."""
        owner = read_owner(self.run.path)
        if owner is not None and owner["token"] == self.token:
            write_json(self.run.path / ATTEMPT, {**owner, "ended": True})


def torn_line_end(file: Any) -> bytes:
    """A newline when the last line was cut short by a crash, else nothing."""
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def claim(run: RunDirectory) -> Attempt:
    """Become the owner of `run`. Raises CannotAnswer when a living process owns it.

    The claim is an atomic link; a dead owner's file is set aside by an atomic rename that one of two
    racing processes wins. Every later write checks the token, so a loser of any race stops by itself.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    owner = read_owner(run.path)
    if owner is not None and owner_is_alive(owner):
        raise CannotAnswer(
            f"{run.path} is being trained by process {owner.get('pid')} on {owner.get('host')}; "
            "wait for it or stop it"
        )
    token, number = uuid.uuid4().hex, int(owner["number"]) + 1 if owner else 1
    mine = {
        "token": token,
        "number": number,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": process_start(os.getpid()),
    }
    beside = run.path / f".attempt.{token}"
    write_json(beside, mine)
    if owner is not None or (run.path / ATTEMPT).exists():
        aside = run.path / f".attempt.dead.{token}"
        try:
            (run.path / ATTEMPT).rename(aside)
            aside.unlink()
        except FileNotFoundError:
            pass  # the other of two racing claims set it aside first; the link below decides
    try:
        os.link(beside, run.path / ATTEMPT)
    except FileExistsError as error:
        raise CannotAnswer(f"{run.path} was claimed by another process at the same moment") from error
    finally:
        beside.unlink(missing_ok=True)
    attempt = Attempt(run=run, token=token, number=number)
    attempt.check()
    return attempt


# --- many runs ------------------------------------------------------------------------------------------


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
    return records, skipped
