"""What a user may ask of Slurm. Nothing typed here can become another directive or a shell command."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SWEEP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,+-]*")
GRES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:/-]*")
CONSTRAINT = re.compile(r"[A-Za-z0-9_\[(!][A-Za-z0-9_.,:=|&*()\[\]!-]*")
MEMORY = re.compile(r"[0-9]+[KMGT]?")
TIME = re.compile(r"(?:[0-9]+-)?[0-9]+(?::[0-9]{1,2}){0,2}")
DIRECTIVE = re.compile(r"--([a-z][a-z-]*)(?:=([A-Za-z0-9_\[(][A-Za-z0-9_.,:=+@/|&*()\[\]-]*))?")

DIRECTIVES = frozenset(
    {"begin", "comment", "contiguous", "core-spec", "cores-per-socket", "cpu-freq", "deadline", "delay-boot"}
    | {"distribution", "exclude", "exclusive", "gpu-bind", "gpu-freq", "hint", "licenses", "mail-type"}
    | {"mail-user", "mem-bind", "mem-per-cpu", "mem-per-gpu", "network", "nice", "nodelist", "oversubscribe"}
    | {"prefer", "priority", "reservation", "sockets-per-node", "spread-job", "switches", "threads-per-core"}
    | {"time-min", "tmp", "use-min-nodes", "wckey"}
)
"""By their whole names, since sbatch takes any unambiguous beginning for an option."""


@dataclass(kw_only=True)
class SlurmConfig:
    """A task trains `cells_per_task` cells one after another; at most `tasks_at_once` tasks of a sweep run
    at the same time. `warning_seconds` before its `time` is over a task saves and requeues itself, at most
    `restarts` times; a cell that fails is tried `retries` times more. `directives` are further lines for
    sbatch, e.g. `--reservation=mine`."""

    cells_per_task: int = 1
    tasks_at_once: int | None = None
    time: str = "24:00:00"
    warning_seconds: int = 120
    cpus_per_task: int = 1
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    constraint: str | None = None
    directives: list[str] = field(default_factory=list)
    restarts: int = 100
    retries: int = 1

    def __post_init__(self) -> None:
        for name in ("cells_per_task", "cpus_per_task", "warning_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"launcher.{name} must be at least 1, not {getattr(self, name)}")
        if self.tasks_at_once is not None and self.tasks_at_once < 1:
            raise ValueError(f"launcher.tasks_at_once must be at least 1, not {self.tasks_at_once}")
        if self.restarts < 0 or self.retries < 0:
            raise ValueError("launcher.restarts and launcher.retries must not be negative")
        for name, (form, example) in FORMS.items():
            value = getattr(self, name)
            if value is not None and not form.fullmatch(value):
                raise ValueError(f"launcher.{name}={value!r} is not as Slurm writes it, e.g. {example}")
        if seconds(self.time) <= self.warning_seconds:
            raise ValueError(
                f"launcher.time={self.time} is no longer than launcher.warning_seconds={self.warning_seconds}"
                ": a task would be asked to stop before it begins"
            )
        for directive in self.directives:
            check(directive)


FORMS = {
    "time": (TIME, "4:00:00"),
    "memory": (MEMORY, "32G"),
    "partition": (NAME, "gpu"),
    "account": (NAME, "lab"),
    "qos": (NAME, "normal"),
    "gres": (GRES, "gpu:a100:1"),
    "constraint": (CONSTRAINT, "a100|h100"),
}


def check(directive: str) -> None:
    """Raises ValueError for what is not one known option of sbatch with a plain value."""
    found = DIRECTIVE.fullmatch(directive)
    if found is None:
        raise ValueError(f"launcher.directives: {directive!r} is not of the form --name=value")
    if found[1] in {"partition", "account", "qos", "gres", "constraint", "time"}:
        raise ValueError(f"launcher.directives: write launcher.{found[1]}= instead of {directive}")
    if found[1] not in DIRECTIVES:
        raise ValueError(f"launcher.directives: --{found[1]} is not one of {', '.join(sorted(DIRECTIVES))}")


def seconds(time: str) -> int:
    """Of Slurm's forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    days, dash, clock = time.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash or len(parts) == 3:
        hours, minutes, rest = [*parts, 0, 0][:3]
    else:
        hours, minutes, rest = [0, *parts, 0][:3]
    return int(days or 0) * 86_400 + hours * 3600 + minutes * 60 + rest
