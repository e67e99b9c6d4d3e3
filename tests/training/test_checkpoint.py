import os
import random
import resource
import stat
from dataclasses import replace
from pathlib import Path

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


def test_one_flipped_bit_of_a_weight_is_noticed(tmp_path, capsys):
    save(tmp_path, state(1))
    newest = save(tmp_path, state(2))
    content = bytearray(newest.read_bytes())
    content[content.index(state(2).model["w"].numpy().tobytes())] ^= 1
    newest.write_bytes(content)
    assert torch.load(newest, weights_only=True)["step"] == 2  # which would train on
    assert load_latest(tmp_path).step == 1
    assert "is damaged (the checksum of" in capsys.readouterr().err


def test_whatever_is_cut_off_or_overwritten_the_one_before_or_the_same_comes_back(tmp_path):
    save(tmp_path, state(1))
    newest = save(tmp_path, state(2))
    content, rng = newest.read_bytes(), random.Random(3)
    for number in range(200):
        place = rng.randrange(len(content))
        rest = content[place + 1 :] if number % 2 else b""
        newest.write_bytes(content[:place] + bytes([rng.randrange(256)]) + rest)
        found = load_latest(tmp_path)
        assert torch.equal(found.model["w"], state(found.step).model["w"])
        assert found.step == 1 or number % 2


def test_a_write_that_does_not_read_back_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, state(1))
    monkeypatch.setattr(torch, "save", lambda _value, file: file.write(b"garbage"))
    with pytest.raises(WrongInput, match="previous checkpoint is kept"):
        save(tmp_path, state(2))
    assert load_latest(tmp_path).step == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "step-000000001.pt"]


def test_the_disk_has_the_file_before_its_name_and_the_name_before_the_pointer(tmp_path, monkeypatch):
    said: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        said.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        said.append(f"rename to {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    save(tmp_path, state(1))
    names = ["step-000000001.pt", "latest.json"]
    assert said == [step for name in names for step in ("sync file", f"rename to {name}", "sync folder")]


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, state(1))

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WrongInput, match="previous checkpoint is kept"):
        save(tmp_path, state(2))
    monkeypatch.undo()
    assert load_latest(tmp_path).step == 1


def test_a_disk_that_fills_up_midway_is_named(tmp_path):
    save(tmp_path, state(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(WrongInput, match="File too large; the previous checkpoint is kept"):
            save(tmp_path, replace(state(2), model={"w": torch.zeros(100_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
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
