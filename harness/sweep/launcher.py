"""Where the cells of a sweep are trained: on this machine or on a cluster."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from harness.sweep.slots import LauncherConfig
from harness.sweep.slurm.settings import SlurmConfig


class LauncherKind(Enum):
    local = "local"
    slurm = "slurm"


@dataclass(kw_only=True)
class AnyLauncherConfig(LauncherConfig, SlurmConfig):
    """`gpus` are those to spread the cells over, with `slurm` those of one task. What belongs to the other
    kind of launcher is refused."""

    kind: LauncherKind = LauncherKind.local

    def __post_init__(self) -> None:
        LauncherConfig.__post_init__(self)
        SlurmConfig.__post_init__(self)
        if self.kind is LauncherKind.slurm and self.gpus > 1:
            raise ValueError(
                f"launcher.gpus={self.gpus}: a task of a sweep trains on one GPU; for a run on several see "
                "slurm/frontier.sbatch"
            )
        other = SlurmConfig() if self.kind is LauncherKind.local else LauncherConfig()
        for field in fields(other):
            if field.name != "gpus" and getattr(self, field.name) != getattr(other, field.name):
                other_kind = "slurm" if self.kind is LauncherKind.local else "local"
                raise ValueError(
                    f"launcher.{field.name} is for launcher={other_kind}, not launcher={self.kind.value}"
                )
