"""The benches run and measure what they say; no assertion on time."""

import json

from harness.training.bench import loader_speed, train_speed


def test_training_is_timed_against_the_bare_loop(toy_cell):
    speed = train_speed(toy_cell, steps=5, repeats=1)
    assert speed.ours > 0 and speed.bare > 0
    assert speed.params_non_embedding == toy_cell.shape.params.non_embedding


def test_the_loader_is_timed_against_torchs(toy_cell):
    speed = loader_speed(toy_cell, repeats=1, seconds=0.05)
    assert speed.ours > 0 and speed.reference > 0


def test_startup_is_measured_from_outside(harness, tmp_path):
    done = harness("bench", "startup", "repeats=1", "format=json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) >= {"harness --help", "harness fit, 250 rows"}
