"""From what a run's callbacks saw to its record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from harness.data.loader import Batches
from harness.model.attention import Attention
from harness.model.loss import CrossEntropy
from harness.runs import Attempt, RunRecord, Status
from harness.shape import Mixer
from harness.training.branch import Shared
from harness.training.callbacks import Clock, Metrics, Saver, Validation
from harness.training.cell import Cell
from harness.training.distributed import choose_device
from harness.training.module import TrainingModule
from harness.training.optimizer_cost import step_flops
from harness.training.out_of_memory import read_halving
from harness.training.peak import peak_bytes
from harness.training.provenance import Origin


@dataclass(frozen=True)
class Outcome:
    """What trained, and what its callbacks saw."""

    module: TrainingModule
    attention: Attention
    cross_entropy: CrossEntropy
    metrics: Metrics
    validation: Validation
    clock: Clock
    origin: Origin
    saver: Saver


def finished(cell: Cell, attempt: Attempt, batches: Batches, outcome: Outcome) -> RunRecord:
    config, shape = cell.config, cell.shape
    reason = divergence(outcome)
    steps = outcome.metrics.diverged_at or cell.horizon.steps
    tokens = steps * cell.horizon.batch_tokens
    shared = Shared(**outcome.saver.shared) if outcome.saver.shared else Shared("", 0, 0.0, "")
    halving = read_halving(attempt.run)
    return RunRecord(
        run_id=cell.run_id,
        group=config.group,
        status=(Status.diverged if reason else Status.done).value,
        reason=reason,
        params_total=shape.params.total,
        params_non_embedding=shape.params.non_embedding,
        params_embedding=shape.params.embedding,
        params_head=shape.params.head,
        tokens=tokens,
        unique_tokens=batches.unique_tokens(steps),
        epochs=batches.epoch(steps),
        steps=steps,
        flops=shape.training_flops(tokens),
        loss=None if reason else outcome.validation.loss,
        loss_kind="validation, nats per token",
        bits_per_byte=None if reason else outcome.validation.bits_per_byte,
        train_loss=outcome.metrics.train_loss,
        lr=cell.peak_lr,
        batch_tokens=cell.horizon.batch_tokens,
        schedule=config.schedule.kind.value,
        optimizer=config.optim.kind.value,
        parametrization=config.parametrization.kind.value,
        width=shape.width,
        depth=shape.depth,
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_kv_heads if shape.attends else None,
        window=shape.window,
        full_every=shape.full_every,
        mixer=shape.mixer.value,
        attention_every=shape.attention_every,
        state_size=shape.state_size if shape.mixer is Mixer.recurrent else None,
        recurrence=shape.recurrence,
        prelude=shape.prelude,
        coda=shape.coda,
        optimizer_flops=steps * step_flops(shape, config.optim.kind),
        context=shape.context,
        vocab_size=shape.vocab_size,
        seed=config.seed,
        data_seed=config.data_seed,
        validation_seed=config.evaluation.seed,
        precision=config.hardware.precision.value,
        attention=outcome.attention.name if shape.attends else "none",
        attention_reason=outcome.attention.reason if shape.attends else "no layer attends",
        attention_tiles=" ".join(map(str, outcome.attention.tiles or ())),
        cross_entropy=outcome.cross_entropy.name,
        cross_entropy_reason=outcome.cross_entropy.reason,
        compiled=outcome.module.compiled,
        strategy=outcome.module.strategy,
        world_size=outcome.saver.world.size,
        threads=torch.get_num_threads(),
        earlier_world_sizes=outcome.saver.earlier_sizes,
        micro_batch=outcome.module.micro_batch,
        out_of_memory_at=halving.failed if halving else None,
        peak_memory_bytes=peak_bytes(choose_device(config.hardware.device)),
        corpus_hash=cell.corpus_hash,
        tokenizer_hash=cell.tokenizer_hash,
        config_hash=cell.config_hash,
        code_version=outcome.origin.code,
        train_seconds=round(outcome.clock.train_seconds, 3),
        tokens_per_second=round(outcome.clock.tokens_per_second, 1),
        attempts=attempt.number,
        failed_attempts=attempt.failures,
        started_at=outcome.origin.started_at,
        finished_at=now(),
        planned_code_version=str(attempt.run.config().get("planned_code_version", "")),
        trunk_run=shared.run_id,
        trunk_code_version=shared.code_version,
        shared_tokens=shared.steps * cell.horizon.batch_tokens,
        shared_flops=shape.training_flops(shared.steps * cell.horizon.batch_tokens),
        shared_seconds=round(shared.train_seconds, 3),
    )


def divergence(outcome: Outcome) -> str:
    """Why the run has no loss; empty when it has one."""
    if outcome.metrics.diverged_at is not None:
        return f"loss or gradient not finite at step {outcome.metrics.diverged_at}"
    loss = outcome.validation.loss
    return "" if loss is not None and math.isfinite(loss) else "the final validation loss is not finite"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
