"""One run, from a frozen cell to its record."""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from harness.data.loader import Batches, target_bytes, validation_windows
from harness.data.shards import TokenStore
from harness.errors import HarnessError, WrongInput
from harness.model.attention import Attention, build_attention
from harness.model.init import build_model
from harness.runs import (
    PROVENANCE,
    AlreadyFinished,
    Attempt,
    IsGone,
    RunDirectory,
    RunRecord,
    Status,
    claim,
    never,
    read_json,
    write_json,
)
from harness.shape import Mixer
from harness.signals import StopFlag
from harness.training.branch import Shared, TrunkSaver, branch_off
from harness.training.callbacks import Clock, Metrics, ProgressBar, Saver, StopOnSignal, Validation
from harness.training.cell import Cell, read_cell
from harness.training.checkpoint import State, load_file, load_latest, path_of
from harness.training.distributed import (
    ALONE,
    Onlooker,
    World,
    choose_device,
    from_first,
    own_device,
    read_world,
    refuse_uneven_batch,
    together,
    told,
)
from harness.training.fitting import micro_batch_of
from harness.training.module import TrainingModule, wants_compile
from harness.training.optimizer_cost import step_flops
from harness.training.peak import forget_peak, peak_bytes
from harness.training.provenance import Origin, code_version, provenance
from harness.training.schedule import build_schedule
from harness.training.settings import Compile, HardwareConfig, Precision
from harness.training.steplog import step_log
from harness.training.steps import evaluation_steps, row_steps, spans
from harness.training.trainer import build_trainer
from harness.training.trunk import trunk_of

VERIFIED_BYTES = 2 << 30
"""Shards up to this size are hashed before every run, a second or two; of larger ones only the size."""


class Stopped(KeyboardInterrupt):
    """The run was asked to stop; its checkpoint is written."""


@dataclass(frozen=True)
class Data:
    """What the run reads: training batches and the fixed validation windows."""

    batches: Batches
    windows: np.ndarray
    windows_bytes: int


def train(
    run: RunDirectory, *, progress: bool = False, flag: StopFlag | None = None, is_gone: IsGone = never
) -> RunRecord:
    """Train the frozen cell in `run` to its record; a finished run is returned as it is.

    Raises CannotAnswer when another process owns the run, WrongInput on damaged files, Stopped after a
    signal, which `flag` notes for a caller that listens already. Any other failure leaves its reason in
    failure.json. `is_gone` is asked as by `harness.runs.claim`.
    """
    if run.status() in (Status.done, Status.diverged):
        return run.record()
    cell = read_cell(run)
    hardware = cell.config.hardware
    world = read_world(os.environ, hardware.strategy)
    flag = flag or StopFlag()
    with together(world, hardware) as store:
        attempt = claim_together(run, world, is_gone)
        if attempt is None:
            return run.record()
        try:
            with told(store, world), flag.listening():
                return train_owned(cell, attempt, world, progress, flag)
        except KeyboardInterrupt:
            attempt.end()
            raise
        except BaseException as error:
            attempt.fail(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            raise


def claim_together(run: RunDirectory, world: World, is_gone: IsGone) -> Attempt | None:
    """The one attempt of all processes; None when another finished the run since we looked."""
    found = from_first(try_to_claim(run, is_gone) if world.leads else None)
    if isinstance(found, AlreadyFinished):
        return None
    if isinstance(found, HarnessError):
        raise found
    return found if world.leads or found is None else Onlooker(**vars(found))


def try_to_claim(run: RunDirectory, is_gone: IsGone) -> Attempt | HarnessError:
    try:
        return claim(run, is_gone)
    except HarnessError as error:
        return error


def load_together(folder: Path, world: World) -> State | None:
    """The checkpoint that the process that leads found good."""
    state = load_latest(folder) if world.leads else None
    step = from_first(state.step if state else None)
    return load_file(path_of(folder, step)) if state is None and step is not None else state


def earlier_sizes(state: State | None, world: World) -> str:
    """With how many processes the run went on before it changed to this many; they sum in another order."""
    if state is None or state.world_size == world.size:
        return state.earlier_sizes if state else ""
    before = f"{state.earlier_sizes}, " if state.earlier_sizes else ""
    return f"{before}{state.world_size} to step {state.step}"


def train_owned(cell: Cell, attempt: Attempt, world: World, progress: bool, flag: StopFlag) -> RunRecord:
    quiet_lightning()
    forget_peak()
    refuse_uneven_batch(cell.horizon.batch_sequences, world)
    trunk = trunk_of(cell) if world.size == 1 else None
    evaluate_at = evaluation_steps(cell)
    state = load_together(attempt.run.checkpoints, world)
    branch = branch_off(attempt.run, cell, trunk, evaluate_at) if trunk and not state else None
    state = branch.state if branch else state
    device = own_device(choose_device(cell.config.hardware.device), world)
    set_threads(cell.config.hardware, state)
    origin = Origin(code=code_version(), started_at=first_start(attempt.run, state))
    if world.leads:
        write_json(attempt.run.path / PROVENANCE, provenance(cell, origin, device, world.size))
    data = open_data(cell)
    module, attention = build_module(cell, data, state, world)
    first = state.step if state else 0

    marks = row_steps(cell, evaluate_at, cell.horizon.steps)
    log = step_log(marks, state, keep=trunk is not None)
    clock = Clock(state.train_seconds if state else 0.0, cell.horizon.batch_tokens)
    metrics = Metrics(cell, attempt, clock, world, log)
    if branch:
        metrics.take_over(branch.validations, module.lr_at)
    validation = Validation(cell, attempt, data.windows, data.windows_bytes, evaluate_at)
    shared = state.shared if state else None
    saver = Saver(cell, attempt, clock, origin.started_at, world, earlier_sizes(state, world), log, shared)
    leaver = [TrunkSaver(saver, trunk, origin.code)] if trunk else []
    stop = StopOnSignal(saver, flag)
    shown = progress and world.leads and sys.stderr.isatty()
    bar = [ProgressBar(cell, first, clock)] if shown else []
    callbacks = [clock, metrics, validation, *leaver, saver, stop, *bar]
    trainer = build_trainer(cell.config.hardware, world, device, callbacks)
    cut_at = evaluate_at | ({trunk.steps} if trunk else set())
    try:
        trainer.fit(module, spans(cell, first, cut_at))
    except SystemExit:  # Lightning's, when SIGTERM came before the first step
        if flag.signal is None:
            raise
        raise Stopped(f"{attempt.run.path} was stopped before it began; start it again to go on") from None
    if stop.agreed and trainer.should_stop:
        raise Stopped(f"{attempt.run.path} was stopped by signal {stop.agreed}; start it again to go on")
    outcome = Outcome(attention, module.compiled, metrics, validation, clock, origin, saver, module.strategy)
    record = finished(cell, attempt, data.batches, outcome)
    attempt.finish(record)
    return record


def set_threads(hardware: HardwareConfig, state: State | None) -> None:
    """As the config says; else as the run began, since sums depend on how they are split."""
    threads = hardware.threads or (state.threads if state else None)
    if threads is not None:
        torch.set_num_threads(threads)


def first_start(run: RunDirectory, state: State | None) -> str:
    """When the first attempt began: a forecast must be older than that."""
    if state is not None:
        return state.started_at
    try:
        return str(read_json(run.path / PROVENANCE)["started_at"])
    except (WrongInput, KeyError, TypeError):
        return now()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def open_data(cell: Cell) -> Data:
    """Open the prepared tokens and check that they are the ones the cell was planned for."""
    store = TokenStore.open(Path(cell.tokens_path))
    if store.manifest.corpus_hash != cell.corpus_hash or store.manifest.tokenizer_hash != cell.tokenizer_hash:
        raise WrongInput(
            f"{cell.tokens_path} holds another corpus or tokenizer than the run was planned for; "
            "run `harness prepare` again or plan anew"
        )
    if sum(shard.stat().st_size for shard in store.path.glob("*.bin")) <= VERIFIED_BYTES:
        store.verify()
    context, config = cell.horizon.context, cell.config
    batches = Batches(
        store,
        split="train",
        context=context,
        batch_sequences=cell.horizon.batch_sequences,
        seed=config.data_seed,
    )
    windows = validation_windows(store, context, config.evaluation.tokens, config.evaluation.seed)
    return Data(batches, windows, target_bytes(windows, store.bytes_per_token))


def build_module(
    cell: Cell, data: Data, state: State | None, world: World = ALONE
) -> tuple[TrainingModule, Attention]:
    config = cell.config
    attention = attention_of(cell, choose_device(config.hardware.device))
    model = build_model(
        cell.shape, attention.attend, config.init, config.parametrization, config.seed, config.loss
    )
    model.activation_checkpointing = config.hardware.activation_checkpointing
    micro_batch = (
        state.micro_batch if state and state.world_size == world.size else micro_batch_of(cell, world.size)
    )
    lr_at = build_schedule(config.schedule, cell.peak_lr, cell.horizon.steps, cell.horizon.batch_tokens)
    compiled = wants_compile(resume_compile(config.hardware.compile, state))
    module = TrainingModule(
        model, data.batches, config.optim, config.hardware, lr_at, micro_batch, compiled, world
    )
    if state:
        model.load_state_dict(state.model)
        module.optimizer_state = state.optimizer
    return module, attention


def attention_of(cell: Cell, device: torch.device) -> Attention:
    config = cell.config
    dtype = torch.bfloat16 if config.hardware.precision is Precision.bf16 else torch.float32
    return build_attention(config.attention.kind, cell.shape, device, dtype)


def resume_compile(choice: Compile, state: State | None) -> Compile:
    """A resumed run goes on as it began: compiled code rounds differently."""
    if state is None:
        return choice
    return Compile.always if state.compiled else Compile.never


@dataclass(frozen=True)
class Outcome:
    """What the callbacks saw."""

    attention: Attention
    compiled: bool
    metrics: Metrics
    validation: Validation
    clock: Clock
    origin: Origin
    saver: Saver
    strategy: str


def finished(cell: Cell, attempt: Attempt, batches: Batches, outcome: Outcome) -> RunRecord:
    config, shape = cell.config, cell.shape
    reason = divergence(outcome)
    steps = outcome.metrics.diverged_at or cell.horizon.steps
    tokens = steps * cell.horizon.batch_tokens
    shared = Shared(**outcome.saver.shared) if outcome.saver.shared else Shared("", 0, 0.0, "")
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
        compiled=outcome.compiled,
        strategy=outcome.strategy,
        world_size=outcome.saver.world.size,
        earlier_world_sizes=outcome.saver.earlier_sizes,
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


def quiet_lightning() -> None:
    """Lightning advertises and warns about loops that are not ours; our numbers go to files."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
