"""Which runs share a trunk. That they are equal to the bit is shown in test_branch.py."""

import pytest

from harness.commands.cells import own_cell
from harness.training.schedule import ScheduleConfig, ScheduleKind, build_schedule, trunk_steps
from harness.training.trunk import Trunk, trunk_of
from tests.conftest import compose

FIXED = ("schedule.warmup_tokens=1024", "schedule.cooldown_fraction=0.2", "schedule.warmup_fraction=0.1")


@pytest.fixture
def trunk(toy_root):
    def of(*overrides: str) -> Trunk | None:
        words = ["horizon.tokens=40_960", *FIXED, *overrides]
        return trunk_of(own_cell(compose(toy_root, "train", words)))

    return of


def test_runs_that_differ_in_their_horizon_alone_share(trunk):
    short, long = trunk("horizon.tokens=20_480"), trunk()
    assert short.key == long.key
    assert (short.steps, long.steps) == (32, 64)


@pytest.mark.parametrize(
    "alike",
    [
        "schedule.cooldown_fraction=0.5",
        "schedule.final_fraction=0.1",
        "schedule.kind=constant",
        "schedule.warmup_fraction=0.2",
        "saving.log_steps=7",
        "hardware.peak_flops=1e12",
        "group=other",
    ],
)
def test_what_shows_only_in_the_cooldown_does_not_part_them(trunk, alike):
    assert trunk(alike).key == trunk().key


@pytest.mark.parametrize(
    "other",
    [
        "seed=1",
        "data_seed=1",
        "optim.lr=0.1",
        "model=56k",
        "horizon.batch_tokens=1024",
        "schedule.warmup_tokens=2048",
        "schedule.warmup_fraction=0.01",  # the warm-up is capped
        "evaluation.every_tokens=10_000",
        "hardware.precision=bf16",
        "parametrization=mup",
        "init.gain=0.5",
    ],
)
def test_whatever_bears_on_the_first_steps_parts_them(trunk, other):
    assert trunk(other).key != trunk().key


@pytest.mark.parametrize(
    "alone", ["schedule.warmup_tokens=null", "schedule.kind=cosine", "saving.share_trunk=false"]
)
def test_some_share_with_nobody(trunk, alone):
    assert trunk(alone) is None


@pytest.mark.parametrize("kind", ScheduleKind)
def test_the_rate_of_a_trunk_does_not_know_the_horizon(kind):
    config = ScheduleConfig(kind=kind, warmup_tokens=1024, warmup_fraction=0.1, cooldown_fraction=0.2)
    short, *longer = (build_schedule(config, 1.0, steps, 512) for steps in (100, 171, 400))
    common = range(trunk_steps(config, 100))
    assert len(common) == {ScheduleKind.wsd: 80, ScheduleKind.cosine: 0, ScheduleKind.constant: 100}[kind]
    for lr_at in longer:
        assert [lr_at(step) for step in common] == [short(step) for step in common]
