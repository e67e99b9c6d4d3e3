"""What a finished run says of itself."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import WrongInput
from harness.runs.files import RECORD, content_hash


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Losses are validation losses in nats per token. `planned_code_version` is the code that was there
    when the run was planned, `code_version` the code that trained it; `attempts` counts all of them, those
    that failed included. `optimizer_flops` are the matrix products of the optimizer, beside `flops`;
    AdamW has none. `attention_reason` is why `attention` was chosen, `attention_tiles` the numbers of its
    tiles where they were timed (of the forward, of dK and dV, of dQ: rows, columns, warps, stages, hoisting),
    `cross_entropy_reason` why `cross_entropy`. `seed` is that of the initial weights, `data_seed` of the
    order of the data, `validation_seed` of the choice of validation windows (None: evenly spaced). A run may
    begin where another one's trunk ends, `trunk_run`'s: it counts what it would have taken alone, of which
    `shared_tokens`, `shared_flops` and `shared_seconds` were that run's. `micro_batch` sequences were taken
    at once, after `out_of_memory_at` of them had not fitted. A process had `threads` on its CPU; how sums
    round depends on that."""

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
    parametrization: str = "standard"
    n_kv_heads: int | None = None
    window: int | None = None
    full_every: int | None = None
    mixer: str = "attention"
    attention_every: int | None = None
    attention_reason: str = ""
    attention_tiles: str = ""
    cross_entropy: str = ""
    cross_entropy_reason: str = ""
    state_size: int | None = None
    recurrence: int = 1
    prelude: int = 0
    coda: int = 0
    optimizer_flops: float = 0.0
    validation_seed: int | None = None
    strategy: str = "single"
    world_size: int = 1
    threads: int | None = None
    earlier_world_sizes: str = ""
    micro_batch: int | None = None
    out_of_memory_at: int | None = None
    peak_memory_bytes: int | None = None
    reason: str = ""
    train_seconds: float = 0.0
    tokens_per_second: float = 0.0
    attempts: int = 1
    failed_attempts: int = 0
    started_at: str = ""
    finished_at: str = ""
    planned_code_version: str = ""
    trunk_run: str = ""
    trunk_code_version: str = ""
    shared_tokens: int = 0
    shared_flops: float = 0.0
    shared_seconds: float = 0.0

    MEASURED = (
        "train_seconds",
        "tokens_per_second",
        "peak_memory_bytes",
        "attempts",
        "failed_attempts",
        "started_at",
        "finished_at",
        "code_version",
        "planned_code_version",
        "trunk_run",
        "trunk_code_version",
        "shared_tokens",
        "shared_flops",
        "shared_seconds",
    )

    @property
    def params_body_and_head(self) -> int:
        """The head is the embedding matrix where `params_head` is 0."""
        return self.params_non_embedding + (self.params_head or self.params_embedding)

    def science(self) -> dict[str, Any]:
        """Everything that must not depend on the clock, the machine's load or interruptions."""
        return {k: v for k, v in asdict(self).items() if k not in self.MEASURED}

    @property
    def interruptions(self) -> int:
        """How often it was stopped, preempted or lost before it finished."""
        return max(0, self.attempts - 1 - self.failed_attempts)

    @property
    def code_changed(self) -> bool:
        """Whether other code trained the run than the code it was planned with."""
        used = {self.code_version, self.trunk_code_version or self.code_version}
        return bool(self.planned_code_version) and used != {self.planned_code_version}


NAMES = frozenset(field.name for field in fields(RunRecord))
REQUIRED = frozenset(f.name for f in fields(RunRecord) if f.default is MISSING) - {*RunRecord.MEASURED}


@dataclass(frozen=True)
class Skipped:
    """A run directory or row that was left out, and why."""

    name: str
    reason: str


def parse_record(value: Any, where: Path) -> RunRecord:
    """Raises WrongInput when a field is missing or unknown, or the hash does not match."""
    if not isinstance(value, dict):
        raise WrongInput(f"{where / RECORD} is not an object")
    body = dict(value)
    sealed = body.pop("hash", None)
    if not body.keys() >= REQUIRED:
        raise WrongInput(f"{where / RECORD} lacks {', '.join(sorted(REQUIRED - body.keys()))}")
    if not body.keys() <= NAMES:
        raise WrongInput(f"{where / RECORD} has unknown fields: {', '.join(sorted(body.keys() - NAMES))}")
    if sealed != content_hash(body):
        raise WrongInput(f"{where / RECORD} was edited after it was written (its hash does not match)")
    return RunRecord(**body)
