"""Two processes on one machine, started as torchrun and srun start them, train what one trains."""

import contextlib
import json
import re
import shutil

import pytest
import torch

from harness.errors import WrongInput
from harness.runs import RunDirectory, Status
from harness.training.cell import read_cell
from harness.training.distributed import (
    ALONE,
    World,
    cause,
    own_device,
    read_world,
    refuse_disagreement,
    refuse_precision,
)
from harness.training.run import train
from harness.training.settings import Precision, Strategy
from tests.training.launched import Mishap, Plan, train_together

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
MEET = {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
ACCUMULATE = "hardware.activation_gib=0.0015"


def losses(run: RunDirectory) -> list[tuple[str, int, float]]:
    return [(row["kind"], row["step"], row["loss"]) for row in run.metrics()]


def assert_close(run: RunDirectory, other: RunDirectory) -> None:
    for (kind, step, loss), (kind_there, step_there, loss_there) in zip(
        losses(run), losses(other), strict=True
    ):
        assert (kind, step) == (kind_there, step_there)
        assert loss == pytest.approx(loss_there, rel=1e-5)


@pytest.fixture(scope="module")
def alone(toy_root, tmp_path_factory) -> RunDirectory:
    from harness.commands.cells import own_cell
    from harness.training.cell import write_cell
    from tests.conftest import compose

    settings = compose(toy_root, "train", ["horizon.tokens=51_200"])
    run = write_cell(tmp_path_factory.mktemp("alone"), own_cell(settings))
    train(run)
    return run


@pytest.mark.parametrize(("strategy", "loss"), [("ddp", "full"), ("fsdp", "chunked")])
def test_two_processes_train_what_one_trains(planned_run, alone, strategy, loss):
    """The chunked loss reads the head's weight, which fsdp shards, without calling the head."""
    run = planned_run("horizon.tokens=51_200", f"hardware.strategy={strategy}", f"loss={loss}", ACCUMULATE)
    assert train_together(run) == [(0, ""), (0, "")]
    assert_close(run, alone)
    record = run.record()
    assert (record.strategy, record.world_size, record.earlier_world_sizes) == (strategy, 2, "")
    assert record.loss == pytest.approx(alone.record().loss, rel=1e-5)
    assert record.steps == 100


def test_compiled_in_pieces_they_train_what_one_trains_uncompiled(planned_run):
    short = "horizon.tokens=2_048"
    alone, run = planned_run(short), planned_run(short, "hardware.compile=always", ACCUMULATE)
    train(alone)
    assert train_together(run, compiled=True) == 2 * [(0, "2 pieces")]
    assert_close(run, alone)
    assert (run.record().strategy, run.record().compiled) == ("ddp", True)


def test_stopped_they_go_on_to_the_bit_and_with_another_number_nearly_so(planned_run, tmp_path):
    """SIGTERM reaches one of two; both save and stop. The whole checkpoint fits any number."""
    short = ("horizon.tokens=20_000", "hardware.strategy=fsdp")
    calm, same = planned_run(*short, "group=calm"), planned_run(*short, "group=same")
    train_together(calm)
    stop = Plan(rank=1, step=20, mishap=Mishap.asked_to_stop)
    assert train_together(same, plan=stop) == [(130, ""), (130, "")]
    assert same.status() is Status.interrupted
    fewer = RunDirectory(tmp_path / "fewer")
    shutil.copytree(same.path, fewer.path)
    train_together(same)
    assert losses(same) == losses(calm)
    assert same.record().earlier_world_sizes == ""
    train(fewer)
    assert_close(fewer, calm)
    record = fewer.record()
    assert (record.strategy, record.world_size, record.earlier_world_sizes) == ("single", 1, "2 to step 21")


@pytest.mark.parametrize(
    ("mishap", "seconds", "reason"),
    [
        (Mishap.killed, 600, "."),
        (Mishap.raises, 600, "process 1 on .* failed: RuntimeError: boom"),
        (Mishap.hangs, 15, "."),  # in which both must also have begun
    ],
)
def test_when_one_fails_the_others_do_not_wait_for_ever(planned_run, mishap, seconds, reason):
    run = planned_run(f"hardware.timeout_seconds={seconds}")
    (code, words), _ = train_together(run, plan=Plan(rank=1, step=20, mishap=mishap))
    assert code == 1
    assert run.status() is Status.failed
    assert json.loads((run.path / "failure.json").read_text())["reason"]
    assert re.search(reason, words)


def test_a_batch_that_cannot_be_shared_is_refused(planned_run):
    run = planned_run("horizon.batch_tokens=480", "horizon.tokens=4_800")
    assert read_cell(run).horizon.batch_sequences == 15
    for code, words in train_together(run):
        assert code == 2
        assert words.startswith("2 processes cannot share a batch of 15 sequences")
        assert "\n" not in words


@pytest.mark.parametrize(
    ("shown", "local_rank", "index"), [(1, 0, 0), (1, 3, 0), (4, 3, 3), (2, 2, None), (4, 9, None)]
)
def test_a_process_has_the_gpu_of_its_number_or_the_only_one(monkeypatch, shown, local_rank, index):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: shown)
    cpu, gpu, world = torch.device("cpu"), torch.device("cuda"), World(local_rank, 16, local_rank)
    assert own_device(cpu, world) == cpu
    if index is not None:
        assert own_device(gpu, world) == torch.device("cuda", index)
        return
    with pytest.raises(WrongInput, match=f"has no GPU: torch sees {shown}; start one process a GPU"):
        own_device(gpu, world)


def test_bf16_is_refused_on_a_card_that_only_emulates_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    gpu = torch.device("cuda", 0)
    for capability, fine in (((7, 5), False), ((8, 0), True), ((12, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, of=capability: of)
        refuse_precision(Precision.fp32, gpu)
        with contextlib.nullcontext() if fine else pytest.raises(WrongInput, match="Tesla T4 has none"):
            refuse_precision(Precision.bf16, gpu)
    refuse_precision(Precision.bf16, torch.device("cpu"))


def test_what_nccl_says_last_is_the_cause():
    said = "NCCL error in: NCCLUtils.cpp:94\nncclInvalidUsage: see\nLast error:\nDuplicate GPU: 0, 1"
    assert cause(RuntimeError(said)) == " (Duplicate GPU: 0, 1)"
    assert cause(RuntimeError("timed out")) == ""


@pytest.mark.parametrize("others", [["a", "a"], ["a", "b"], ["b", "a"]])
def test_processes_that_would_compute_with_different_kernels_all_stop(monkeypatch, others):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr(
        "torch.distributed.all_gather_object", lambda found, _: found.__setitem__(slice(2), others)
    )
    if others == ["a", "a"]:
        refuse_disagreement("a")
        return
    with pytest.raises(
        WrongInput, match=f"process 0 would compute with {others[0]}, process 1 with {others[1]}"
    ):
        refuse_disagreement("a")


def test_who_one_is_the_launcher_says():
    assert read_world(TORCHRUN, Strategy.auto) == World(3, 8, 1)
    assert read_world({**SRUN, **MEET}, Strategy.fsdp) == World(3, 8, 1)
    assert read_world({**SRUN, "RANK": "0", "WORLD_SIZE": "1"}, Strategy.auto) == ALONE  # torchrun decides
    assert read_world({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", **MEET}, Strategy.auto) == ALONE  # no step
    assert read_world({}, Strategy.ddp) == ALONE


def test_tasks_without_a_meeting_place_are_strangers():
    assert read_world(SRUN, Strategy.auto) == ALONE
    with pytest.raises(WrongInput, match="need MASTER_ADDR and MASTER_PORT to meet"):
        read_world(SRUN, Strategy.ddp)


def test_shares_are_even_and_cover_the_batch():
    rows = list(range(12))
    assert [row for rank in range(4) for row in rows[World(rank, 4).share(12)]] == rows
