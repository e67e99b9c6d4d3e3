"""The text that sbatch gets: pure, from settings and a manifest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.sweep.slurm.settings import SlurmConfig

TEMPLATE, REQUEUE = "array.sbatch", "requeue.sh"


@dataclass(frozen=True)
class Array:
    """One array: its job name, its number of tasks, what each task runs, where its output goes."""

    name: str
    tasks: int
    command: tuple[str, ...]
    log: str
    gpus: int = 0


def template() -> str:
    """The script of an array with its rule for requeueing, its other gaps open."""
    text, rule = (path_of(name).read_text(encoding="utf-8") for name in (TEMPLATE, REQUEUE))
    return text.replace("@requeue@", rule.rstrip())


def path_of(name: str) -> Path:
    """A file of slurm/: the shipped one of a wheel, else the checkout's."""
    shipped = Path(harness.__file__).parent / "slurm" / name
    return shipped if shipped.exists() else Path(harness.__file__).parent.parent / "slurm" / name


def render(text: str, config: SlurmConfig, array: Array) -> str:
    """The template with its gaps filled."""
    gaps = {
        "@directives@": "\n".join(f"#SBATCH {line}" for line in directives(config, array)),
        "@restarts@": str(config.restarts),
        "@command@": shlex.join(array.command),
    }
    return re.sub("|".join(gaps), lambda gap: gaps[gap[0]], text)  # at once: no filling is filled again


def indices(start: int, stop: int, at_once: int | None) -> str:
    """Slurm's name for the tasks from `start` to `stop`, of which at most so many run at once."""
    return f"{start}-{stop - 1}" + (f"%{at_once}" if at_once else "")


def directives(config: SlurmConfig, array: Array) -> Sequence[str]:
    wanted = {
        "job-name": array.name,
        "array": indices(0, array.tasks, config.tasks_at_once),
        "output": array.log,
        "open-mode": "append",
        "signal": f"B:USR1@{config.warning_seconds}",
        "time": config.time,
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(config.cpus_per_task),
        "mem": config.memory,
        "gpus-per-node": str(array.gpus) if array.gpus else None,
        "gres": config.gres,
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "constraint": config.constraint,
    }
    return [
        "--requeue",
        *(f"--{name}={value}" for name, value in wanted.items() if value is not None),
        *config.directives,
    ]
