"""The benches run and measure what they say; no assertion on time."""

import json
import sys

import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.training.bench import loader_speed, packing, train_speed
from harness.training.contest import Entry, Kind, start


def test_training_is_timed_against_the_bare_loop(toy_cell):
    speed = train_speed(toy_cell, steps=5, repeats=2, python=sys.executable)
    assert [loop.loop for loop in speed.loops][:2] == ["ours", "bare PyTorch loop"]
    assert all(loop.tokens_per_second > 0 and loop.low <= loop.ratio <= loop.high for loop in speed.loops)
    assert speed.loops[0].ratio == 1 and speed.loops[0].mfu is None
    assert speed.params_non_embedding == toy_cell.shape.params.non_embedding
    for reason in speed.left_out.values():
        assert "pip install" in reason


def test_a_python_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WrongInput, match="python=/nowhere/python is no program"):
        start(Entry(Kind.transformers, compiled=False, python="/nowhere/python"), tmp_path)


def test_the_loader_is_timed_against_torchs(toy_cell):
    speed = loader_speed(toy_cell, repeats=1, seconds=0.05)
    assert speed.ours > 0 and speed.reference > 0


def test_startup_is_measured_from_outside(harness, tmp_path):
    done = harness("bench", "startup", "repeats=1", "format=json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) >= {"harness --help", "harness fit, 250 rows"}


def test_cells_side_by_side_are_timed_against_one_at_a_time(toy_cell):
    found = packing(toy_cell, steps=3, repeats=2, cores=[0, 0])
    assert min(found.one_thread, found.all_threads, found.side_by_side) > 0
    assert found.low <= found.ratio <= found.high


def test_memory_is_measured_of_models_nobody_named(toy_root, monkeypatch):
    from harness.commands import bench, bench_memory
    from tests.conftest import compose, toy_overrides

    def name(cell):
        raise CannotAnswer(cell.config.model.name)

    monkeypatch.setattr(bench, "task_overrides", lambda: [*toy_overrides(toy_root), "what=memory"])
    monkeypatch.setattr(bench_memory, "measured_memory", name)
    with pytest.raises(CannotAnswer, match="620k"):
        bench.bench_memory(compose(toy_root, "bench", ["what=memory"]))


@pytest.mark.parametrize("words", ["steps=0", "repeats=0"])
def test_nothing_is_timed_no_times(toy_root, words):
    from tests.conftest import compose

    with pytest.raises(WrongInput, match="must be at least 1"):
        compose(toy_root, "bench", ["what=train", words])
