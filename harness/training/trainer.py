"""Lightning's Trainer for one process or for several."""

from __future__ import annotations

import logging
import warnings
from datetime import timedelta

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy

from harness.training.distributed import World
from harness.training.lean import lightning
from harness.training.settings import HardwareConfig, Strategy


class Launched(ClusterEnvironment):
    """Processes that a launcher started. Lightning counts every one as a node of one device, so that it does
    not matter how many a machine holds, nor whether the launcher shows each its own GPU alone."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise AssertionError("the processes have met before Lightning is there")

    @property
    def main_port(self) -> int:
        raise AssertionError("the processes have met before Lightning is there")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.world.size

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.world.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.world.rank


def build_trainer(
    hardware: HardwareConfig, world: World, device: torch.device, callbacks: list[lightning.Callback]
) -> lightning.Trainer:
    on_gpu = device.type == "cuda"
    # "deterministic" would fill all new memory with NaN first, a pass over it; nothing here reads what it has
    # not written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return lightning.Trainer(
        max_epochs=1,
        accelerator="cuda" if on_gpu else "cpu",
        devices=[device.index or 0] if on_gpu else 1,
        num_nodes=world.size,
        strategy=lightning_strategy(hardware, world),
        plugins=[LightningEnvironment() if world.size == 1 else Launched(world)],
        use_distributed_sampler=False,  # every process takes every step, and its share of each batch
        deterministic=hardware.deterministic and on_gpu,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )


def lightning_strategy(hardware: HardwareConfig, world: World) -> LightningStrategy | str:
    if world.size == 1:
        return "auto"
    timeout = timedelta(seconds=hardware.timeout_seconds)
    if hardware.strategy is Strategy.fsdp:
        return ModelParallelStrategy(
            data_parallel_size=world.size,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            timeout=timeout,
        )
    return DDPStrategy(timeout=timeout, broadcast_buffers=False, gradient_as_bucket_view=True)


def quiet_lightning() -> None:
    """Lightning advertises and warns about loops that are not ours; our numbers go to files."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
