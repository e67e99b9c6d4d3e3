"""A run that begins where another one's trunk ends is equal to the bit to the same run trained alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.commands.cells import own_cell
from harness.runs import METRICS, TRUNKS, RunDirectory, Status
from harness.training import checkpoint
from harness.training.branch import branch_off
from harness.training.cell import read_cell, write_cell
from harness.training.module import TrainingModule
from harness.training.run import train
from harness.training.steps import evaluation_steps
from harness.training.trunk import trunk_of
from tests.conftest import compose
from tests.training.killed import Kill, Trainer
from tests.training.test_killed import outcome

BATCH = 64
STEPS = {"short": 205, "middle": 260, "long": 310}
TRUNK = {"short": 154, "middle": 195, "long": 232}  # where rows of metrics end differs: every 2 or 3 steps
WORDS = (
    f"horizon.batch_tokens={BATCH}",
    "schedule.warmup_tokens=1024",
    "schedule.warmup_fraction=0.1",
    "schedule.cooldown_fraction=0.25",
    "evaluation.every_tokens=4_000",
    "evaluation.tokens=512",
)
SAVING = "saving.checkpoint_seconds=0"
Plan = Callable[..., RunDirectory]


def planner(toy_root: Path, runs: Path) -> Plan:
    def plan(name: str, *words: str) -> RunDirectory:
        horizon = f"horizon.tokens={STEPS[name] * BATCH}"
        settings = compose(toy_root, "train", [*WORDS, horizon, "group=one", *words])
        return write_cell(runs, own_cell(settings))

    return plan


@pytest.fixture
def plan(toy_root, tmp_path) -> Plan:
    return planner(toy_root, tmp_path)


@pytest.fixture(scope="module")
def alone(toy_root, tmp_path_factory) -> dict[str, tuple]:
    """What each run is when it shares nothing."""
    plan = planner(toy_root, tmp_path_factory.mktemp("alone"))
    saving = {"long": [SAVING]}  # its weights are compared, the others' losses and rows
    runs = {name: plan(name, "saving.share_trunk=false", *saving.get(name, [])) for name in STEPS}
    for run in runs.values():
        assert train(run).shared_tokens == 0
        assert not (run.path.parent / TRUNKS).exists()
    return {name: outcome(run) for name, run in runs.items()}


@pytest.fixture(scope="module")
def begun(toy_root, tmp_path_factory) -> Path:
    """A folder of runs in which the short one is done."""
    runs = tmp_path_factory.mktemp("begun")
    train(planner(toy_root, runs)("short"))
    return runs


@pytest.fixture
def after_short(toy_root, tmp_path, begun) -> Plan:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    return planner(toy_root, tmp_path)


def trunk_states(run: RunDirectory) -> list[Path]:
    return sorted(run.path.parent.glob(f"{TRUNKS}/*/*"))


@pytest.fixture
def steps_taken(monkeypatch) -> list[int]:
    taken: list[int] = []
    original = TrainingModule.optimizer_step_at

    def counted(module: TrainingModule, step: int, optimizer: torch.optim.Optimizer) -> tuple:
        taken.append(step)
        return original(module, step, optimizer)

    monkeypatch.setattr(TrainingModule, "optimizer_step_at", counted)
    return taken


def test_every_branch_equals_the_run_alone_and_costs_only_what_is_new(after_short, alone, steps_taken):
    short = after_short("short")
    assert outcome(short) == alone["short"]
    for name, before in (("middle", "short"), ("long", "middle")):
        run = after_short(name, *([SAVING] if name == "long" else []))
        record = train(run)
        assert outcome(run) == alone[name]
        assert steps_taken == list(range(TRUNK[before], STEPS[name]))
        assert record.shared_tokens == TRUNK[before] * BATCH
        assert record.shared_flops / record.flops == pytest.approx(TRUNK[before] / STEPS[name])
        assert record.trunk_run == after_short(before).run_id
        assert record.train_seconds > record.shared_seconds > 0
        rows = [row for row in run.metrics() if row["kind"] == "train"]
        assert {row["step"] <= TRUNK[before] for row in rows if row["tokens_per_second"] is None} == {True}
        assert {row["step"] > TRUNK[before] for row in rows if row["tokens_per_second"]} == {True}
        steps_taken.clear()
    assert [checkpoint.read(path)["state"]["step"] for path in trunk_states(short)] == list(TRUNK.values())


@pytest.mark.parametrize(
    ("kill", "at"),
    [
        (Kill.checkpoint, 3),  # in the trunk
        (Kill.checkpoint, 26),  # while the trunk state is written, after checkpoints at 156, 159, ..., 231
        (Kill.checkpoint, 40),  # in the cooldown
    ],
)
def test_killed_anywhere_a_branch_ends_as_if_alone(after_short, alone, trainer: Trainer, kill, at):
    run = after_short("long", SAVING)
    assert trainer.train(run.path, kill, at) == -9
    assert len(trunk_states(run)) == (2 if at == 40 else 1)
    assert trainer.train(run.path) == 0
    assert outcome(run) == alone["long"]
    assert run.record().shared_tokens == TRUNK["short"] * BATCH
    assert len(trunk_states(run)) == 2


def flip_a_bit(state: Path, content: bytes) -> None:
    place = content.index(checkpoint.read(state)["state"]["losses"].numpy().tobytes()) + 800
    state.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def without_losses(state: Path, _: bytes) -> None:
    value = checkpoint.read(state)
    torch.save({**value, "state": {**value["state"], "losses": None}}, state)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        without_losses,
        lambda state, content: state.write_bytes(content[:-1000]),
        lambda state, _: state.rename(state.with_name("step-000000153.pt")),
    ],
    ids=["one bit", "without losses", "cut short", "of another step"],
)
def test_a_damaged_trunk_state_is_set_aside_and_said_so(after_short, capsys, damage):
    run = after_short("middle")
    (state,) = trunk_states(run)
    damage(state, state.read_bytes())
    cell = read_cell(run)
    assert branch_off(run, cell, trunk_of(cell), evaluation_steps(cell)) is None
    said = capsys.readouterr().err
    assert "is damaged" in said and "no state of this trunk to begin with" in said
    assert [path.suffix for path in trunk_states(run)] == [".damaged"]


def test_a_state_that_cannot_be_read_is_left_where_it_is(after_short, monkeypatch, capsys):
    def unreadable(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    run = after_short("middle")
    cell, before = read_cell(run), trunk_states(run)
    monkeypatch.setattr("harness.training.branch.read", unreadable)
    assert branch_off(run, cell, trunk_of(cell), evaluation_steps(cell)) is None
    assert "Permission denied" in capsys.readouterr().err
    assert trunk_states(run) == before


def test_a_constant_rate_is_trunk_to_the_end(planned_run, steps_taken):
    words = (*WORDS[:3], "schedule.kind=constant", "schedule.warmup_fraction=0.5")
    short, long = ("horizon.tokens=2_560", "horizon.tokens=5_120")
    train(planned_run(*words, short))
    branch = planned_run(*words, long)
    assert train(branch).shared_tokens == 2_560
    assert steps_taken == list(range(80))
    whole = planned_run(*words, long, "saving.share_trunk=false", "group=alone")
    train(whole)
    assert outcome(branch) == outcome(whole)


def test_a_trunk_that_a_failed_run_left_is_used(plan, alone, trainer: Trainer):
    short, middle = plan("short"), plan("middle")
    assert trainer.train(short.path, Kill.record) == -9
    assert short.status() is Status.lost
    assert train(middle).shared_tokens == TRUNK["short"] * BATCH
    assert outcome(middle) == alone["middle"]


def test_of_a_sibling_that_died_in_its_trunk_nothing_is_used(plan, alone, trainer: Trainer):
    assert trainer.train(plan("short", SAVING).path, Kill.checkpoint, 20) == -9
    assert train(plan("middle")).shared_tokens == 0
    assert outcome(plan("middle")) == alone["middle"]


def test_siblings_of_a_trunk_that_diverges_diverge_alike(plan):
    words = ("optim.lr=1e20", "optim.clip_grad_norm=1e30")
    records = [train(plan(name, *words)) for name in ("short", "middle")]
    assert [record.status for record in records] == ["diverged"] * 2
    assert records[0].steps == records[1].steps < TRUNK["short"]
    assert trunk_states(plan("short", *words)) == []


def test_a_full_disk_at_the_branch_point_costs_the_others_not_the_run(plan, alone, monkeypatch, capsys):
    run = plan("short")
    original = checkpoint.write

    def full(path: Path, *rest: object) -> None:
        if TRUNKS in str(path):
            raise OSError(28, "No space left on device")
        original(path, *rest)

    monkeypatch.setattr("harness.training.branch.write", full)
    train(run)
    assert outcome(run) == alone["short"]
    assert "longer runs will train these steps again" in capsys.readouterr().err


def test_without_a_trunk_state_a_run_trains_alone_whatever_it_had_taken_over(
    after_short, alone, trainer: Trainer
):
    """The trunk state goes missing after the first attempt has taken its rows over."""
    run = after_short("middle")
    assert trainer.train(run.path, Kill.metrics, 1) == -9
    assert (run.path / METRICS).exists()
    assert not list(run.checkpoints.glob("step-*"))
    shutil.rmtree(run.path.parent / TRUNKS)
    assert train(run).shared_tokens == 0
    assert outcome(run) == alone["middle"]
