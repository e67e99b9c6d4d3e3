"""Several processes, one a device, that train one model. They are started from outside, by torchrun or srun.

Every process takes its share of each global batch, so that the batch and its order do not depend on how many
there are. The first owns the run directory; the others write nothing. The collectives below are no-ops in a
single process.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import Store
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor

from harness.errors import CannotAnswer, HarnessError, WrongInput, in_one_line
from harness.model.transformer import Transformer
from harness.runs import Attempt, RunRecord
from harness.training.settings import Device, HardwareConfig, Precision, Strategy

Value = TypeVar("Value")
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun; a batch script alone is no step
)
MEETING_PLACE = ("MASTER_ADDR", "MASTER_PORT")
FAILURE = "harness/failure"
LAST_ERROR = "Last error:"
BF16_SINCE = (8, 0)
"""NVIDIA's compute capability (CUDA C++ Programming Guide, table of arithmetic throughput)."""


@dataclass(frozen=True)
class World:
    """This process among those that train one model."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether it owns the run directory."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Its part of `count` rows, which the number of processes divides."""
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)


ALONE = World()


@dataclass(frozen=True)
class Onlooker(Attempt):
    """The attempt of the process that leads, as the others see it: they write nothing."""

    def check(self) -> None:
        pass

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        pass

    def sync_metrics(self) -> None:
        pass

    def finish(self, record: RunRecord) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def end(self) -> None:
        pass


def read_world(environment: Mapping[str, str], strategy: Strategy) -> World:
    """What the launcher says. Under `auto`, srun's tasks work together only where a meeting place is given:
    without one they may well train different runs. Raises WrongInput where ddp or fsdp lack it."""
    for rank, size, local_rank in LAUNCHERS:
        if rank in environment and size in environment:
            found = World(int(environment[rank]), int(environment[size]), int(environment.get(local_rank, 0)))
            break
    else:
        return ALONE
    if found.size == 1:
        return ALONE
    missing = [name for name in MEETING_PLACE if not environment.get(name)]
    if missing and strategy is Strategy.auto:
        return ALONE
    if missing:
        raise WrongInput(
            f"hardware.strategy={strategy.value}: {found.size} processes need {' and '.join(missing)} to "
            "meet; export them before srun, or start with torchrun"
        )
    return found


def resolve_strategy(strategy: Strategy, world: World) -> str:
    """What the record says: `single` for one process, whatever was asked."""
    if world.size == 1:
        return "single"
    return (Strategy.ddp if strategy is Strategy.auto else strategy).value


def choose_device(device: Device) -> torch.device:
    """Raises WrongInput when a GPU is asked for and none is there."""
    if device is Device.cuda and not torch.cuda.is_available():
        built = "" if torch.version.cuda or torch.version.hip else ", being built for CPUs alone"
        raise WrongInput(
            f"hardware.device=cuda but torch {torch.__version__} sees no GPU{built}; use auto or cpu"
        )
    use_gpu = device is not Device.cpu and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def own_device(device: torch.device, world: World) -> torch.device:
    """The GPU of this process: the one of its number on its machine, or the only one that it was shown.
    Raises WrongInput where there are fewer GPUs than processes."""
    if device.type != "cuda":
        return device
    shown = torch.cuda.device_count()
    if 1 < shown <= world.local_rank:
        raise WrongInput(
            f"process {world.local_rank + 1} of {socket.gethostname()} has no GPU: torch sees {shown}; start "
            "one process a GPU (torchrun --nproc-per-node, or srun --ntasks-per-node)"
        )
    return torch.device("cuda", world.local_rank if shown > 1 else 0)


def refuse_precision(precision: Precision, device: torch.device) -> None:
    """Raises WrongInput for bf16 on a card that only emulates it, many times slower than fp32."""
    if precision is not Precision.bf16 or device.type != "cuda" or torch.version.hip is not None:
        return
    if (capability := torch.cuda.get_device_capability(device)) < BF16_SINCE:
        raise WrongInput(
            f"hardware.precision=bf16: {torch.cuda.get_device_name(device)} has none (compute capability "
            f"{capability[0]}.{capability[1]}, bf16 came with 8.0); use hardware.precision=fp32"
        )


def refuse_uneven_batch(batch_sequences: int, world: World) -> None:
    if batch_sequences % world.size:
        raise WrongInput(
            f"{world.size} processes cannot share a batch of {batch_sequences} sequences evenly; change "
            "horizon.batch_tokens or the number of processes"
        )


@contextlib.contextmanager
def together(world: World, hardware: HardwareConfig) -> Iterator[Store | None]:
    """While it is open the processes can reach each other; none is waited for longer than
    `hardware.timeout_seconds`. Raises CannotAnswer when they do not meet."""
    if world.size == 1:
        yield None
        return
    device = own_device(choose_device(hardware.device), world)
    yield meet(world, device, timedelta(seconds=hardware.timeout_seconds))
    dist.destroy_process_group()  # not after a failure: nobody may be there to take leave of


@contextlib.contextmanager
def told(store: Store | None, world: World) -> Iterator[None]:
    """A process that fails says so to the others, for whom a collective then fails: they raise CannotAnswer
    with its reason."""
    try:
        yield
    except Exception as error:
        if store is None:
            raise
        if (reason := failure_elsewhere(store)) and not isinstance(error, HarnessError):
            raise CannotAnswer(f"{reason}; start all processes again to go on") from error
        with contextlib.suppress(Exception):  # the store may be gone with the first process
            store.set(FAILURE, f"process {world.rank} on {socket.gethostname()} failed: {in_one_line(error)}")
        raise


def meet(world: World, device: torch.device, timeout: timedelta) -> Store:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        store: Store = next(rendezvous("env://", world.rank, world.size, timeout=timeout))[0]
        dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=timeout)
        dist.barrier(device_ids=[device.index] if device.type == "cuda" else None)  # NCCL connects only here
    except (RuntimeError, ValueError, OSError) as error:
        raise CannotAnswer(
            f"process {world.rank} of {world.size} did not meet the others: {in_one_line(error)}"
            f"{cause(error)}"
        ) from error
    return store


def cause(error: BaseException) -> str:
    """What NCCL says under its own first line, such as that two processes have the same GPU."""
    told = str(error).partition(LAST_ERROR)[2].strip().splitlines()
    return f" ({told[0]})" if told else ""


def refuse_disagreement(chosen: str) -> None:
    """Raises WrongInput, in every process, where they would not all compute with the same kernels."""
    if not dist.is_initialized():
        return
    found = [""] * dist.get_world_size()
    dist.all_gather_object(found, chosen)
    other = next((rank for rank, one in enumerate(found) if one != found[0]), None)
    if other is not None:
        raise WrongInput(
            f"process 0 would compute with {found[0]}, process {other} with {found[other]}; plan with "
            "attention=sdpa loss=chunked, or another that all have"
        )


def failure_elsewhere(store: Store) -> str:
    """What another process said of its failure; empty when none did."""
    try:
        said = store.get(FAILURE).decode() if store.check([FAILURE]) else ""
    except Exception:  # the store went with the first process
        return "the first process is gone"
    return said


def from_first(value: Value) -> Value:
    """The first process's value, in every process."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def largest(number: int, device: torch.device) -> int:
    """The largest of the processes' numbers."""
    if not dist.is_initialized():
        return number
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def summed(values: Tensor) -> Tensor:
    """The sum over processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def averaged(values: Tensor) -> Tensor:
    """The mean over processes, in place."""
    return summed(values).div_(dist.get_world_size()) if dist.is_initialized() else values


def shard(model: Transformer, mesh: DeviceMesh) -> None:
    """Fully sharded data parallelism (Zhao et al. 2023, arXiv:2304.11277): every process keeps a share of
    each weight, and a block is gathered only while it is needed."""
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "loss")


def sync_gradients(model: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass of a sharded model reduces its gradients."""
    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(wanted)


def gathered(value: Any, keep: bool = True) -> Any:
    """A state in which every sharded tensor is whole, on the CPU. Every process must ask for it; one that
    does not `keep` it gets None for each, since a machine holds as many copies as processes that do."""
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, dict):
        return {key: gathered(item, keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [gathered(item, keep) for item in value]
    return value


def shard_moments(optimizer: torch.optim.Optimizer) -> None:
    """Shard a whole state, as loaded from a checkpoint, the way its weights are."""
    for weight, state in optimizer.state.items():
        if isinstance(weight, DTensor):
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    state[name] = distribute_tensor(value, weight.device_mesh, weight.placements)
