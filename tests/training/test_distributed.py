"""Two processes on one machine, started as torchrun and srun start them, train what one trains."""

import json
import re
import shutil

import pytest

from harness.errors import WrongInput
from harness.runs import RunDirectory, Status
from harness.training.cell import read_cell
from harness.training.distributed import ALONE, World, read_world
from harness.training.run import train
from harness.training.settings import Strategy
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
    ("mishap", "reason"),
    [
        (Mishap.killed, "."),
        (Mishap.raises, "process 1 on .* failed: RuntimeError: boom"),
        (Mishap.hangs, "."),
    ],
)
def test_when_one_fails_the_others_do_not_wait_for_ever(planned_run, mishap, reason):
    run = planned_run("hardware.timeout_seconds=3")
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
