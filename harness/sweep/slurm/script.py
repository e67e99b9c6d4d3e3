"""The text that sbatch gets: pure, from settings and a manifest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.errors import WrongInput
from harness.runs import content_hash
from harness.sweep.slurm.settings import SWEEP, SlurmConfig

TEMPLATE, REQUEUE = "array.sbatch", "requeue.sh"


@dataclass(frozen=True)
class Array:
    """One array: its job name, its number of tasks, what each task runs, where its output goes, and where a
    task (%a) notes how its executions ended."""

    name: str
    tasks: int
    command: tuple[str, ...]
    log: str
    ends: str
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
        "@ends@": array.ends.replace("%a", "$SLURM_ARRAY_TASK_ID"),
        "@command@": shlex.join(array.command),
    }
    return re.sub("|".join(gaps), lambda gap: gaps[gap[0]], text)  # at once: no filling is filled again


def indices(start: int, stop: int, at_once: int | None) -> str:
    """Slurm's name for the tasks from `start` to `stop`, of which at most so many run at once."""
    return f"{start}-{stop - 1}" + (f"%{at_once}" if at_once else "")


def job_name(root: Path, what: str) -> str:
    """Of a sweep's folder and no other's: squeue lists the jobs of everybody, and sweeps of one name in two
    folders are two. Raises WrongInput for a folder whose name could be taken for more than a name."""
    folder = root.resolve()
    if not SWEEP.fullmatch(folder.name):
        raise WrongInput(f"{folder.name!r} must be a plain folder name: letters, digits, . _ -")
    return f"{folder.name}-{content_hash(str(folder))[:8]}-{what}"


def options(config: SlurmConfig, *names: str) -> list[str]:
    """These of the settings, as sbatch wants them."""
    wanted = {"time": config.time, "cpus-per-task": str(config.cpus_per_task), "mem": config.memory}
    wanted |= {"partition": config.partition, "account": config.account, "qos": config.qos}
    wanted |= {"constraint": config.constraint}
    return [f"--{name}={wanted[name]}" for name in names if wanted[name] is not None]


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
