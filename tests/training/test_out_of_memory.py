"""A micro-batch that does not fit: halved once, noted, and gone on from where the run was."""

import json

import pytest
import torch

from harness.runs import FAILURE, METRICS, TRUNKS
from harness.training.module import TrainingModule
from harness.training.out_of_memory import NOTE, Halving, OutOfMemory, is_out_of_memory, read_halving
from harness.training.run import train

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.fixture
def memory_for(monkeypatch):
    """memory_for(n): more than n sequences at once do not fit, from the given call on."""
    plain = TrainingModule.backward_of
    calls = [0]

    def limit(sequences: int, since: int = 0) -> None:
        def backward_of(self, windows, *args, **kwargs):
            calls[0] += 1
            if calls[0] > since and len(windows) > sequences:
                raise RuntimeError(ALLOCATOR)
            return plain(self, windows, *args, **kwargs)

        monkeypatch.setattr(TrainingModule, "backward_of", backward_of)

    return limit


def test_what_says_that_memory_ran_out():
    assert is_out_of_memory(RuntimeError(ALLOCATOR))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize(
    "said",
    [
        "backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB.",
        "HIP out of memory. Tried to allocate 2.00 MiB.",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "HIP error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_what_says_so_on_a_gpu(said):
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_it_is_halved_once_and_the_run_ends_as_with_that_micro_batch(planned_run, memory_for, capsys):
    calm = train(planned_run("horizon.tokens=20_480", "hardware.activation_gib=100"))
    assert calm.micro_batch == 16 and calm.out_of_memory_at is None
    run = planned_run("horizon.tokens=20_480", "hardware.activation_gib=99")
    memory_for(8)
    record = train(run)
    assert (record.micro_batch, record.out_of_memory_at) == (8, 16)
    assert record.attempts == 1 and not (run.path / FAILURE).exists()
    assert record.loss == pytest.approx(calm.loss, rel=1e-4)
    assert "16 sequences at once" in capsys.readouterr().err
    assert read_halving(run) == Halving(16, 8)


def test_it_goes_on_from_its_checkpoint(planned_run, memory_for):
    words = ("horizon.tokens=20_480", "hardware.activation_gib=100", "saving.checkpoint_seconds=0")
    run = planned_run(*words)
    memory_for(8, since=25)
    record = train(run)
    rows = [json.loads(line) for line in (run.path / METRICS).read_text().splitlines()]
    steps = [(row["kind"], row["step"]) for row in rows]
    assert record.out_of_memory_at == 16 and record.micro_batch == 8
    assert len(steps) == len(set(steps)), "no step that a checkpoint covers is trained twice"


def test_a_second_time_the_run_fails_and_says_what_to_do(planned_run, memory_for):
    run = planned_run("horizon.tokens=20_480", "hardware.activation_gib=100")
    memory_for(2)
    with pytest.raises(OutOfMemory, match=r"8 sequences at once; lower hardware\.activation_gib"):
        train(run)
    assert "out of memory" in json.loads((run.path / FAILURE).read_text())["reason"]
    assert (run.path / NOTE).exists()


def test_a_halved_run_leaves_no_trunk(planned_run, memory_for):
    """A longer one would take it for what it would have computed itself."""
    words = ("horizon.tokens=20_480", "schedule.warmup_tokens=1024", "schedule.warmup_fraction=0.1")
    whole = planned_run(*words, "hardware.activation_gib=100", "group=whole")
    train(whole)
    assert any((whole.path.parent / TRUNKS).glob("*/*.pt"))
    run = planned_run(*words, "hardware.activation_gib=100", "group=halved")
    memory_for(8)
    train(run)
    assert not any((run.path.parent / TRUNKS).glob("*/*.pt"))
