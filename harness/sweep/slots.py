"""What each cell of a queue on this machine may use: cores of its own, and a GPU where there are some."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import WrongInput
from harness.training.packing import slot_cores

AUTO = "auto"
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


@dataclass(kw_only=True)
class LauncherConfig:
    """`slots` cells at once, each pinned to `threads_per_slot` cores of its own; `auto` measures how many
    (`harness.sweep.throughput`). With `gpus` they are pinned to no cores, and have at least their even share
    of them: compiling for a GPU takes cores too."""

    slots: int | str | None = None
    threads_per_slot: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        if self.slots not in (None, AUTO) and not (type(self.slots) is int and self.slots >= 1):
            raise ValueError(f"launcher.slots must be auto or at least 1, not {self.slots}")
        if self.slots == AUTO and self.gpus:
            raise ValueError(
                "launcher.slots=auto compares cores; with launcher.gpus say how many cells at once"
            )
        if self.threads_per_slot < 1 or self.gpus < 0:
            raise ValueError("launcher.threads_per_slot must be at least 1 and launcher.gpus not negative")


@dataclass(frozen=True)
class Slot:
    """What one child may use. Slots may share cores; the number tells them apart."""

    number: int
    cores: tuple[int, ...]
    gpu: str | None


def build_slots(config: LauncherConfig, cores: Sequence[int]) -> list[Slot]:
    """One slot per GPU where there are some, else one per group of cores; at most so many under `auto`."""
    width = min(config.threads_per_slot, len(cores))
    said = config.slots if isinstance(config.slots, int) else 0
    wanted = said or config.gpus or max(1, len(cores) // width)
    if config.gpus:
        width = max(width, len(cores) // wanted)
    groups = [slot_cores(number, width, cores) for number in range(wanted)]
    gpus = visible_gpus(config.gpus)
    return [Slot(i, group, gpus[i % len(gpus)] if gpus else None) for i, group in enumerate(groups)]


def visible_gpus(count: int) -> list[str]:
    """The first `count` of the GPUs this process was given, by the names CUDA knows them by."""
    given = next((os.environ[name] for name in VISIBLE if name in os.environ), None)
    names = [str(i) for i in range(count)] if given is None else shown(given)
    if len(names) < count:
        raise WrongInput(f"launcher.gpus={count} but CUDA_VISIBLE_DEVICES={given} shows only {len(names)}")
    return names[:count]


def shown(given: str) -> list[str]:
    """The GPUs of such a variable; -1 hides what comes after it."""
    names = [name.strip() for name in given.split(",") if name.strip()]
    return names[: names.index("-1")] if "-1" in names else names


def only(gpu: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that show a process one GPU. HIP prefers its own over CUDA's: where it is set, both."""
    return {name: gpu for name in VISIBLE if name == VISIBLE[0] or name in environment}


def own_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
