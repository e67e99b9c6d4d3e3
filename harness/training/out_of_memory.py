"""A micro-batch that does not fit is halved, once a run, and the run goes on from its last checkpoint.

The rest of the gradient accumulates as it would have; sums are in another order, so the run is not that of a
larger machine to the bit, and its record says so.
"""

from __future__ import annotations

import gc
import re
from dataclasses import asdict, dataclass

import torch

from harness.errors import CannotAnswer, WrongInput
from harness.runs import Attempt, RunDirectory, read_json, write_json

NOTE = "out_of_memory.json"
TOLD = re.compile(
    r"can't allocate memory"  # PyTorch's allocator on a CPU
    r"|(CUDA|HIP) out of memory"  # the one on a GPU, where a compiler has wrapped its error in one of its own
    r"|(CUDA|HIP|hip|Triton) [Ee]rror( \[\w+\])?: (hipErrorOutOfMemory|out of memory)"
    r"|(CUBLAS|HIPBLAS|CUDNN)_STATUS_(ALLOC_FAILED|INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)"
)
"""How those say it who raise a bare RuntimeError."""


class OutOfMemory(CannotAnswer):
    """`micro_batch` sequences at once did not fit."""

    def __init__(self, micro_batch: int, device: torch.device) -> None:
        super().__init__(
            f"out of memory on {device.type} with {micro_batch} sequences at once; lower "
            "hardware.activation_gib, or take a smaller model, context or hardware.precision=bf16"
        )
        self.micro_batch = micro_batch


@dataclass(frozen=True)
class Halving:
    """out_of_memory.json: the micro-batch that did not fit, and the one that the run goes on with."""

    failed: int
    micro_batch: int


def is_out_of_memory(error: BaseException) -> bool:
    told = isinstance(error, RuntimeError) and TOLD.search(str(error))
    return bool(told) or isinstance(error, torch.OutOfMemoryError | MemoryError)


def read_halving(run: RunDirectory) -> Halving | None:
    """None where the micro-batch was not halved. Raises WrongInput when the note is damaged."""
    path = run.path / NOTE
    if not path.exists():
        return None
    try:
        return Halving(**read_json(path))
    except TypeError as error:
        raise WrongInput(f"{path} is damaged: {error}; remove it") from error


def halve(attempt: Attempt, failed: int) -> bool:
    """Note it for this attempt and later ones; False when that was done before or one sequence is left."""
    if failed < 2 or read_halving(attempt.run) is not None:
        return False
    half = max(n for n in range(1, failed // 2 + 1) if failed % n == 0)
    attempt.check()
    write_json(attempt.run.path / NOTE, asdict(Halving(failed, half)))
    return True


def release_memory() -> None:
    """What the failed try still holds: cycles of modules, and blocks that CUDA's allocator keeps."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
