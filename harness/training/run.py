"""One run, from a frozen cell to its record."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.data.loader import Batches, target_bytes, validation_windows
from harness.data.shards import TokenStore
from harness.errors import HarnessError, WrongInput, in_one_line
from harness.model.attention import Attention
from harness.model.init import build_model
from harness.model.loss import CrossEntropy
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
from harness.signals import StopFlag
from harness.training.branch import TrunkSaver, branch_off
from harness.training.callbacks import Clock, Metrics, ProgressBar, Saver, StopOnSignal, Validation
from harness.training.cell import Cell, read_cell
from harness.training.checkpoint import State, load_file, load_latest, path_of
from harness.training.choices import attention_of, loss_of, tuning_of
from harness.training.compiling import is_compiled
from harness.training.damaged_cache import recompiled
from harness.training.distributed import (
    ALONE,
    Onlooker,
    World,
    choose_device,
    from_first,
    own_device,
    read_world,
    refuse_disagreement,
    refuse_precision,
    refuse_uneven_batch,
    together,
    told,
)
from harness.training.fitting import micro_batch_of
from harness.training.memory import divisors
from harness.training.module import TrainingModule
from harness.training.out_of_memory import (
    Halving,
    OutOfMemory,
    halve,
    is_out_of_memory,
    read_halving,
    release_memory,
)
from harness.training.outcome import Outcome, finished, now
from harness.training.peak import forget_peak
from harness.training.provenance import Origin, code_version, provenance
from harness.training.schedule import build_schedule
from harness.training.settings import HardwareConfig
from harness.training.steplog import step_log
from harness.training.steps import evaluation_steps, row_steps, spans
from harness.training.trainer import build_trainer, quiet_lightning
from harness.training.trunk import trunk_of

VERIFIED_BYTES = 2 << 30
"""Shards up to this size are hashed before every run, a second or two; of larger ones only the size."""
SHAPES = 256
"""So many shapes one process compiles; PyTorch's own limit on all recompilations of a function."""


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
            with told(store, world), flag.listening(), as_if_alone():
                return recompiled(
                    lambda: train_halving(cell, attempt, world, progress, flag), alone=world.size == 1
                )
        except KeyboardInterrupt:
            attempt.end()
            raise
        except BaseException as error:
            attempt.fail(in_one_line(error))
            raise


def train_halving(cell: Cell, attempt: Attempt, world: World, progress: bool, flag: StopFlag) -> RunRecord:
    """Once a run, a micro-batch that does not fit is halved. Not where several processes take a step: the
    others are in the middle of it."""
    try:
        return train_owned(cell, attempt, world, progress, flag)
    except OutOfMemory as error:
        if world.size > 1 or not halve(attempt, error.micro_batch):
            raise
        print(f"{error}; going on with half as many", file=sys.stderr)
    release_memory()
    return train_owned(cell, attempt, world, progress, flag)


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
    refuse_uneven_batch(cell.horizon.batch_sequences, world)
    trunk = trunk_of(cell) if world.size == 1 else None
    evaluate_at = evaluation_steps(cell)
    state = load_together(attempt.run.checkpoints, world)
    branch = branch_off(attempt.run, cell, trunk, evaluate_at) if trunk and not state else None
    state = branch.state if branch else state
    device = own_device(choose_device(cell.config.hardware.device), world)
    forget_peak(device)
    set_threads(cell.config.hardware, state)
    origin = Origin(code=code_version(), started_at=first_start(attempt.run, state))
    if world.leads:
        write_json(attempt.run.path / PROVENANCE, provenance(cell, origin, device, world.size))
    data = open_data(cell)
    halving = read_halving(attempt.run)
    module, attention, cross_entropy = build_module(cell, data, state, world, halving)
    first = state.step if state else 0

    marks = row_steps(cell, evaluate_at, cell.horizon.steps)
    log = step_log(marks, state, keep=trunk is not None)
    clock = Clock(state.train_seconds if state else 0.0, cell.horizon.batch_tokens)
    metrics = Metrics(cell, attempt, clock, world, log)
    if branch:
        metrics.take_over(branch.validations, module.lr_at)
    validation = Validation(cell, attempt, data.windows, data.windows_bytes, evaluate_at)
    shared = state.shared if state else None
    sizes, tiles = earlier_sizes(state, world), attention.tiles
    saver = Saver(cell, attempt, clock, origin.started_at, world, sizes, log, shared, tiles)
    whole = trunk is not None and halving is None  # a halved run sums in another order
    leaver = [TrunkSaver(saver, trunk, origin.code)] if trunk and whole else []
    stop = StopOnSignal(saver, flag)
    shown = progress and world.leads and sys.stderr.isatty()
    bar = [ProgressBar(cell, first, clock)] if shown else []
    callbacks = [clock, metrics, validation, *leaver, saver, stop, *bar]
    trainer = build_trainer(cell.config.hardware, world, device, callbacks)
    cut_at = evaluate_at | ({trunk.steps} if trunk else set())
    try:
        trainer.fit(module, spans(cell, first, cut_at))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory(module.micro_batch, device) from error
        raise
    except SystemExit:  # Lightning's, when SIGTERM came before the first step
        if flag.signal is None:
            raise
        raise Stopped(f"{attempt.run.path} was stopped before it began; start it again to go on") from None
    if stop.agreed and trainer.should_stop:
        raise Stopped(f"{attempt.run.path} was stopped by signal {stop.agreed}; start it again to go on")
    outcome = Outcome(module, attention, cross_entropy, metrics, validation, clock, origin, saver)
    record = finished(cell, attempt, data.batches, outcome)
    attempt.finish(record)
    return record


def set_threads(hardware: HardwareConfig, state: State | None) -> None:
    """As the config says; else as the run began, since sums depend on how they are split; else as many as
    the process has, said all the same: MKL may take fewer than it was never told to take."""
    torch.set_num_threads(hardware.threads or (state.threads if state else torch.get_num_threads()))


@contextlib.contextmanager
def as_if_alone() -> Iterator[None]:
    """What several runs of one process would hand on: the threads, which are the process's; and how much was
    compiled before, since a function's ninth shape is silently not compiled by PyTorch's default."""
    before = torch.get_num_threads()
    try:
        with torch._dynamo.config.patch(recompile_limit=SHAPES):
            yield
    finally:
        torch.set_num_threads(before)


def first_start(run: RunDirectory, state: State | None) -> str:
    """When the first attempt began: a forecast must be older than that."""
    if state is not None:
        return state.started_at
    try:
        return str(read_json(run.path / PROVENANCE)["started_at"])
    except (WrongInput, KeyError, TypeError):
        return now()


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
    cell: Cell, data: Data, state: State | None, world: World = ALONE, halving: Halving | None = None
) -> tuple[TrainingModule, Attention, CrossEntropy]:
    config = cell.config
    device = own_device(choose_device(config.hardware.device), world)
    refuse_precision(config.hardware.precision, device)
    compiled = is_compiled(config.hardware, device, state.compiled if state else None)
    attention = attention_of(cell, device, compiled, tuning_of(cell, state, world))
    cross_entropy = loss_of(cell, device)
    refuse_disagreement(f"attention={attention.name} loss={cross_entropy.name}")
    model = build_model(
        cell.shape, attention.attend, config.init, config.parametrization, config.seed, cross_entropy.loss
    )
    model.activation_checkpointing = config.hardware.activation_checkpointing
    micro_batch = (
        state.micro_batch if state and state.world_size == world.size else micro_batch_of(cell, world.size)
    )
    if halving:
        share = cell.horizon.batch_sequences // world.size
        micro_batch = max(n for n in divisors(share) if n <= min(micro_batch, halving.micro_batch))
    lr_at = build_schedule(config.schedule, cell.peak_lr, cell.horizon.steps, cell.horizon.batch_tokens)
    module = TrainingModule(
        model, data.batches, config.optim, config.hardware, lr_at, micro_batch, compiled, world
    )
    if state:
        model.load_state_dict(state.model)
        module.optimizer_state = state.optimizer
    return module, attention, cross_entropy
