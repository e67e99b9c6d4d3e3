"""Training loops timed against each other: each in a process of its own, that trains so many steps whenever
it is told to, so that they take turns on the same machine and share nothing. No torch."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO

import harness
from harness.errors import CannotAnswer, WrongInput


class Kind(Enum):
    ours = "ours"
    bare = "bare PyTorch loop"
    transformers = "transformers Trainer"
    litgpt = "litgpt pretrain"


PACKAGES = {
    Kind.transformers: "pip install transformers accelerate",
    Kind.litgpt: "pip install litgpt (in an environment of its own: it pins huggingface-hub; then python=)",
}
"""How those who want to see other packages' loops get them."""


WARM_TURNS = 3
"""The first turn of a loop that fetches ahead is empty, the second compiles."""
WARM_STEPS = 3


@dataclass(frozen=True)
class Entry:
    """`python` runs the loop; `cores` pins its process."""

    kind: Kind
    compiled: bool
    python: str = sys.executable
    threads: int | None = None
    cores: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.kind.value


@dataclass(frozen=True)
class Turn:
    """Wall-clock seconds, and processor seconds over all threads, of so many steps."""

    seconds: float
    processor_seconds: float


@dataclass
class Contender:
    """A loop that waits for its turns. Raises CannotAnswer with the reason when it cannot run."""

    entry: Entry
    process: subprocess.Popen[str] = field(repr=False)

    def begin(self, steps: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # it says why where the turn ends
            print(steps, file=self.pipe(self.process.stdin), flush=True)

    def end(self) -> Turn:
        line = self.pipe(self.process.stdout).readline()
        if not line:
            raise CannotAnswer(f"{self.entry.name} ended with code {self.process.wait()} and no reason")
        found = json.loads(line)
        if "missing" in found:
            raise CannotAnswer(f"no package {found['missing']}: {PACKAGES[self.entry.kind]}")
        if "error" in found:
            raise CannotAnswer(found["error"])
        return Turn(**found)

    def turn(self, steps: int) -> Turn:
        self.begin(steps)
        return self.end()

    def pipe(self, stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def start(entry: Entry, run: Path) -> Contender:
    """Of the frozen cell in the run directory `run`. Raises WrongInput for a Python that is not there."""
    paths = [str(Path(harness.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if entry.threads is not None:
        environment["OMP_NUM_THREADS"] = str(entry.threads)
    if shutil.which(entry.python) is None:
        raise WrongInput(f"python={entry.python} is no program; give another environment's bin/python")
    process = subprocess.Popen(
        [entry.python, "-m", "harness.training.contenders", entry.kind.name, str(entry.compiled), str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        preexec_fn=lambda: pin(entry.cores),
    )
    return Contender(entry, process)


def pin(cores: Sequence[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def together(contenders: Sequence[Contender], steps: int) -> float:
    """Seconds until all have taken their steps, begun at once."""
    for contender in contenders:
        contender.begin(steps)
    return max(contender.end().seconds for contender in contenders)


def warm(contenders: Sequence[Contender]) -> None:
    for _ in range(WARM_TURNS if contenders else 0):
        together(contenders, WARM_STEPS)
