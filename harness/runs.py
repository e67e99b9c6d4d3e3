"""The run directory: the only contract between training and analysis.

runs/<sweep>/<run>/
    config.json       resolved and frozen when the run was planned, with its hash
    provenance.json   code, package versions, hardware, corpus and tokenizer hashes, first start
    attempt.json      who owns the run now (host, pid, start time, token); replaced by a later attempt
    metrics.jsonl     append-only, one object a line; a step that was logged twice counts once, the later
    failure.json      why the last attempt ended badly; removed when the run finishes
    record.json       written once, atomically, last
    checkpoints/
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from harness.errors import CannotAnswer, HarnessError, WrongInput

CONFIG, PROVENANCE, METRICS = "config.json", "provenance.json", "metrics.jsonl"
ATTEMPT, FAILURE, RECORD = "attempt.json", "failure.json", "record.json"
TAIL_BYTES = 8192
FOREIGN_SILENCE_SECONDS = 900.0
"""An owner on another host that has written nothing for so long is taken for dead. Should it only have
been slow, it finds itself superseded at its next write and stops."""


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
    started_at: str = ""
    finished_at: str = ""

    MEASURED = ("train_seconds", "tokens_per_second", "attempts", "started_at", "finished_at", "code_version")

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
    beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
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
        if not isinstance(value, dict) or not isinstance(value.get("config"), dict) or "hash" not in value:
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
        if (self.path / RECORD).exists():
            return Status(self.record().status)
        owner = read_owner(self.path)
        if owner is not None and owner_is_alive(owner, self.path):
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
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- ownership ------------------------------------------------------------------------------------------


def process_start(pid: int) -> str | None:
    """An identifier of a living process that a reused pid does not share; None when it is gone.

    Where there is no /proc a living process is only known by its pid.
    """
    if not Path("/proc/self/stat").exists():
        return "alive" if signal_reaches(pid) else None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = stat.rsplit(")", 1)[1].split()
    return None if after_name[0] == "Z" else after_name[19]


def signal_reaches(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_owner(run: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads((run / ATTEMPT).read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(owner, dict) and "token" in owner
    typed = whole and isinstance(owner.get("pid"), int) and isinstance(owner.get("number"), int)
    return owner if typed else None


def owner_is_alive(owner: dict[str, Any], run: Path) -> bool:
    """Whether the owning process still runs: on this host by its pid, on another by its last sign of life."""
    if owner.get("ended"):
        return False
    if owner.get("host") != socket.gethostname():
        return time.time() - last_sign_of_life(run) < FOREIGN_SILENCE_SECONDS
    found = process_start(int(owner.get("pid", -1)))
    return found is not None and found == owner.get("process_start")


def last_sign_of_life(run: Path) -> float:
    """Seconds since the epoch of the newest write of an attempt."""
    files = (run / ATTEMPT, run / METRICS)
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


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
        """Append whole lines in one write.

        Raises WrongInput when the disk is full, Superseded when the run has another owner by now.
        """
        self.check()
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        path = self.run.path / METRICS
        try:
            with path.open("ab+") as file:
                file.write(torn_line_end(file) + text.encode())
        except OSError as error:
            raise WrongInput(
                f"cannot write {path}: {error.strerror}; free some space and start again"
            ) from error

    def sync_metrics(self) -> None:
        """Put the rows on the disk before a checkpoint says that they need not be written again."""
        path = self.run.path / METRICS
        if path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def finish(self, record: RunRecord) -> None:
        self.check()
        body = asdict(record)
        write_json(self.run.path / RECORD, {**body, "hash": content_hash(body)})
        (self.run.path / FAILURE).unlink(missing_ok=True)
        self.end()

    def fail(self, reason: str) -> None:
        """Note why, as far as that can still be written: the failure itself must reach the user."""
        with contextlib.suppress(HarnessError):
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

    Two claims at once are decided by a lock that is held only while the owner's file is replaced. Every
    later write of an attempt checks its token, so one that was superseded stops by itself.
    """
    with claiming(run.path):
        owner = read_owner(run.path)
        if owner is not None and owner_is_alive(owner, run.path):
            raise CannotAnswer(
                f"{run.path} is being trained by process {owner.get('pid')} on {owner.get('host')}; "
                "wait for it or stop it"
            )
        attempt = Attempt(run=run, token=uuid.uuid4().hex, number=int(owner["number"]) + 1 if owner else 1)
        mine = {
            "token": attempt.token,
            "number": attempt.number,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": process_start(os.getpid()),
        }
        write_json(run.path / ATTEMPT, mine)
        (run.path / FAILURE).unlink(missing_ok=True)
    return attempt


@contextlib.contextmanager
def claiming(run: Path) -> Iterator[None]:
    """One claim at a time. Without locks on the file system the token alone has to do."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        with (run / ".claim").open("w") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise WrongInput(f"cannot write in {run}: {error.strerror}") from error


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
