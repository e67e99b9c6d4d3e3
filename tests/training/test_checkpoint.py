import os

import pytest
import torch

from harness.errors import WrongInput
from harness.training.checkpoint import State, load_latest, save


def state(step: int) -> State:
    weights = {"w": torch.full((4,), float(step))}
    return State(
        step=step,
        model=weights,
        optimizer={"state": {}},
        micro_batch=2,
        threads=1,
        compiled=False,
        train_seconds=1.5,
        started_at="2026-01-01T00:00:00+00:00",
    )


def test_the_newest_comes_back_and_two_are_kept(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, state(step))
    loaded = load_latest(tmp_path)
    assert loaded.step == 3
    assert torch.equal(loaded.model["w"], torch.full((4,), 3.0))
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["step-000000002.pt", "step-000000003.pt"]


def test_a_damaged_checkpoint_falls_back_and_says_so(tmp_path, capsys):
    save(tmp_path, state(1))
    newest = save(tmp_path, state(2))
    newest.write_bytes(newest.read_bytes()[:100])
    assert load_latest(tmp_path).step == 1
    assert "step-000000002.pt is damaged" in capsys.readouterr().err
    assert newest.with_suffix(".damaged").exists()


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, state(1))

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WrongInput, match="previous checkpoint is kept"):
        save(tmp_path, state(2))
    monkeypatch.undo()
    assert load_latest(tmp_path).step == 1


def test_pickled_code_is_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"step": 9, "model": Trap()}, tmp_path / "step-000000009.pt")
    assert load_latest(tmp_path) is None
    assert not (tmp_path / "sprung").exists()


def test_a_half_written_file_is_swept_away(tmp_path):
    save(tmp_path, state(1))
    (tmp_path / ".step-000000002.pt.123").write_bytes(b"half")
    assert load_latest(tmp_path).step == 1
    assert not list(tmp_path.glob(".step-*"))
