"""A run keeps to the tiles it began with, and its record names them. The card is put in."""

from dataclasses import replace

import pytest
import torch

from harness.errors import WrongInput
from harness.model.attention import Attention, Tuning, sdpa
from harness.training import choices
from harness.training.cell import read_cell
from harness.training.checkpoint import State, load_latest, save
from harness.training.choices import tuning_of
from harness.training.distributed import ALONE
from harness.training.run import train
from harness.training.settings import Device, HardwareConfig

TILES = (64, 64, 4, 2, 1) * 3
STATE = State(
    step=3,
    model={},
    optimizer={},
    micro_batch=2,
    threads=1,
    compiled=False,
    train_seconds=1.5,
    started_at="2026-01-01T00:00:00+00:00",
    attention_tiles=TILES,
)


def test_tiles_are_fixed_by_the_checkpoint(planned_run, tmp_path):
    cell = read_cell(planned_run("hardware.device=auto", "hardware.autotune=true"))
    context = cell.shape.context
    save(tmp_path, STATE)
    assert tuning_of(cell, None, ALONE) == Tuning(context, None)
    assert tuning_of(cell, load_latest(tmp_path), ALONE) == Tuning(context, TILES)
    assert tuning_of(cell, replace(STATE, attention_tiles=None), ALONE) is None, "begun with the shipped ones"
    with pytest.raises(WrongInput, match=r"hardware\.autotune=true: several processes"):
        tuning_of(cell, None, replace(ALONE, size=2))


def test_without_being_asked_for_nothing_is_tuned(planned_run):
    assert tuning_of(read_cell(planned_run()), None, ALONE) is None
    with pytest.raises(ValueError, match=r"hardware\.device is cpu"):
        HardwareConfig(device=Device.cpu, autotune=True)


def test_the_record_names_the_tiles(planned_run, monkeypatch):
    asked = []

    def build(kind, shape, device: torch.device, dtype, on_cpu, tuning):
        asked.append(tuning)
        return Attention(sdpa, "triton", "tiles timed there", TILES)

    monkeypatch.setattr(choices, "build_attention", build)
    settings = ("hardware.device=auto", "hardware.autotune=true", "saving.checkpoint_seconds=0")
    run = planned_run(*settings, "horizon.tokens=5_120")
    record = train(run)
    assert asked == [Tuning(read_cell(run).shape.context)]
    assert record.attention_tiles == " ".join(map(str, TILES))
    assert load_latest(run.checkpoints).attention_tiles == TILES
