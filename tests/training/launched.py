"""Processes started as torchrun starts them, one of which may be made to misbehave."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from harness.errors import HarnessError
from harness.runs import RunDirectory

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["harness.training.run"])


class Mishap(Enum):
    asked_to_stop = "SIGTERM"
    killed = "SIGKILL"
    raises = "an exception"
    hangs = "no progress"


@dataclass(frozen=True)
class Plan:
    """What befalls the process of `rank` in the first span that starts at `step` or later."""

    rank: int
    step: int
    mishap: Mishap


def train_together(
    run: RunDirectory, size: int = 2, plan: Plan | None = None, *, compiled: bool = False
) -> list[tuple[int, str]]:
    """Exit code and last words of each process. Where they are `compiled` (`split_and_trace`), these say into
    how many pieces."""
    with reserved_port() as port:
        return meet_at(port, run, size, plan, compiled)


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else is given meanwhile; who names it may listen there, for this does not."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def meet_at(
    port: int, run: RunDirectory, size: int, plan: Plan | None, compiled: bool
) -> list[tuple[int, str]]:
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(size)]
    processes = [
        CONTEXT.Process(target=member, args=(run.path, rank, size, port, pipes[rank][1], plan, compiled))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            if plan and plan.mishap is Mishap.hangs and process is processes[plan.rank]:
                continue
            process.join(1200)  # on a busy machine compiling alone takes minutes
            assert process.exitcode is not None, "a process waits for ever"
    finally:
        for process in processes:
            process.kill()
            process.join()
    words = [pipe[0].recv() if pipe[0].poll() else "" for pipe in pipes]
    return [(process.exitcode, said) for process, said in zip(processes, words, strict=True)]


def member(path: Path, rank: int, size: int, port: int, out, plan: Plan | None, compiled: bool) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from harness.training.run import train

    if plan and plan.rank == rank:
        arrange(plan)
    pieces = split_and_trace() if compiled else []
    try:
        train(RunDirectory(path))
        if compiled:
            out.send(f"{max(pieces)} pieces")
    except HarnessError as error:
        out.send(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        out.send(f"{type(error).__name__}: {error}")
        sys.exit(1)


def arrange(plan: Plan) -> None:
    from harness.training.module import Span, TrainingModule

    original = TrainingModule.training_step

    def step(self: TrainingModule, span: Span, index: int) -> None:
        if span.start >= plan.step:
            match plan.mishap:
                case Mishap.asked_to_stop:
                    os.kill(os.getpid(), signal.SIGTERM)
                case Mishap.killed:
                    os.kill(os.getpid(), signal.SIGKILL)
                case Mishap.raises:
                    raise RuntimeError("boom")
                case Mishap.hangs:
                    time.sleep(1000)
        original(self, span, index)

    TrainingModule.training_step = step


def split_and_trace() -> list[int]:
    """A compiled step without what g++ makes of it: traced, differentiated, and cut where a first bucket of
    8 KiB of gradients would be sent. Into how many pieces, once it has been."""
    import torch
    from torch._dynamo.backends.distributed import DDPOptimizer

    from harness.training import compiling, module

    pieces: list[int] = []
    split = DDPOptimizer.compile_fn

    def counted(self: DDPOptimizer, *arguments):
        found = split(self, *arguments)
        pieces.append(len(self.buckets))
        return found

    DDPOptimizer.compile_fn = counted
    torch.distributed._DEFAULT_FIRST_BUCKET_BYTES = 8 << 10
    compiling.missing_compiler = lambda _: ""
    module.compile_with = lambda _, function: torch.compile(function, dynamic=False, backend="aot_eager")
    return pieces
