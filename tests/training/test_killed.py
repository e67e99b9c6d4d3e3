"""Killed by SIGKILL at any instant, a run ends with the metrics and weights of an undisturbed one.

The storm kills at random instants until nothing is left to kill. Longer, e.g. 40 kills:

    HARNESS_STORM_KILLS=40 pytest tests/training/test_killed.py -k storm
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from harness.commands.cells import own_cell
from harness.runs import RunDirectory, Status
from harness.training.cell import write_cell
from harness.training.checkpoint import load_latest
from tests.conftest import compose
from tests.training.killed import Kill
from tests.training.test_run import science_of

WORDS = (
    "horizon.tokens=2_560",
    "horizon.batch_tokens=64",
    "evaluation.every_tokens=640",
    "evaluation.tokens=256",
    "saving.checkpoint_seconds=0",
    "saving.log_steps=1",
)
KILLS = int(os.environ.get("HARNESS_STORM_KILLS", "4"))


def outcome(run: RunDirectory) -> tuple:
    """All that must not depend on how often a run was killed. Its weights and moments are those of the last
    checkpoint, a few steps before the end; the last ones are in the final validation loss."""
    record, rows = science_of(run)
    state = load_latest(run.checkpoints)
    tensors = sorted(flat({"model": state.model, "optimizer": state.optimizer})) if state else []
    return {**record, "group": ""}, rows, state.step if state else None, tensors


def flat(value: object, name: str = "") -> Iterator[tuple[str, bytes]]:
    """Every tensor below `value`, as bytes."""
    if isinstance(value, torch.Tensor):
        yield name, value.numpy().tobytes()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{name}.{key}")


@dataclass(frozen=True)
class Calm:
    """A run that nothing disturbed, and how long it took."""

    outcome: tuple
    seconds: float


@pytest.fixture(scope="module")
def calm(toy_root, tmp_path_factory, trainer) -> Calm:
    settings = compose(toy_root, "train", [*WORDS, "group=calm"])
    run = write_cell(tmp_path_factory.mktemp("calm"), own_cell(settings))
    began = time.monotonic()
    assert trainer.train(run.path) == 0
    assert len(outcome(run)[3]) > 20
    return Calm(outcome(run), time.monotonic() - began)


@pytest.mark.parametrize(
    ("kill", "at"),
    [
        (Kill.checkpoint, 0),
        (Kill.checkpoint, 17),
        (Kill.pointer, 17),
        (Kill.validation, 9),
        (Kill.metrics, 20),
        (Kill.record, 0),
    ],
    ids=lambda value: value.name if isinstance(value, Kill) else str(value),
)
def test_killed_at_the_worst_moments(planned_run, trainer, calm, kill, at):
    run = planned_run(*WORDS)
    assert trainer.train(run.path, kill, at) == -9
    assert run.status() is Status.lost
    assert trainer.train(run.path) == 0
    assert run.record().attempts == 2
    assert outcome(run) == calm.outcome


def test_a_storm_of_kills(planned_run, trainer, calm):
    rng, kills, number = random.Random(5), 0, 0
    while kills < KILLS:
        run = planned_run(*WORDS, f"group=storm{number}")
        number += 1
        for kill, at in random_kills(rng, KILLS - kills, calm.seconds):
            ended = trainer.train(run.path, kill, at)
            assert ended in (0, -9)
            kills += ended == -9
        assert trainer.train(run.path) == 0
        assert outcome(run) == calm.outcome


def random_kills(rng: random.Random, most: int, seconds: float) -> Iterator[tuple[Kill, float]]:
    """A few for one run, before a file operation or at any instant. An attempt makes some ten a step."""
    for _ in range(min(most, rng.randint(1, 5))):
        if rng.random() < 0.5:
            yield Kill.file_operation, rng.randrange(300)
        else:
            yield Kill.seconds, rng.uniform(0.0, seconds)
