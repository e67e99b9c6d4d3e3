"""What a GPU needs of the trainer, as far as it can be seen without one."""

import time

import pytest
import torch

from harness.errors import WrongInput
from harness.training.callbacks import SHARE, Clock, Saver
from harness.training.cell import read_cell
from harness.training.distributed import choose_device
from harness.training.peak import forget_peak
from harness.training.provenance import DRIVERS, driver
from harness.training.run import train
from harness.training.settings import Device
from harness.training.steps import GPU_SPAN_FLOPS, SPAN_FLOPS, row_steps


def test_a_run_on_a_cpu_leaves_the_gpu_alone(planned_run, monkeypatch):
    """Another process may have it for itself, and a context there takes memory."""

    def touched(*_: object) -> None:
        raise AssertionError("the GPU was touched")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", touched)
    forget_peak(torch.device("cpu"))
    assert train(planned_run("hardware.device=cpu", "horizon.tokens=1_024")).loss


@pytest.mark.parametrize(
    ("cuda", "said"), [(None, "sees no GPU, being built for CPUs"), ("13.0", "sees no GPU; use")]
)
def test_where_no_gpu_is_seen_it_is_said_whether_one_could_be(monkeypatch, cuda, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(WrongInput, match=said):
        choose_device(Device.cuda)
    assert choose_device(Device.auto) == choose_device(Device.cpu) == torch.device("cpu")


def test_steps_are_taken_together_for_about_a_second_on_either_device(planned_run):
    words = ("model=1.8m", "horizon.batch_tokens=262_144", "context=32", "horizon.tokens=262_144_000")
    few, many = (read_cell(planned_run(*words, f"hardware.device={device}")) for device in ("cpu", "cuda"))
    step = few.shape.training_flops(few.horizon.batch_tokens)
    assert SPAN_FLOPS < step < GPU_SPAN_FLOPS / 2
    last = few.horizon.steps
    assert len(row_steps(few, {last}, last)) == last
    assert len(row_steps(many, {last}, last)) < last / 2


@pytest.mark.parametrize(
    ("wanted", "took", "since", "late"),
    [(20, 1, 21, True), (20, 1, 19, False), (20, 10, 100, False), (20, 10, 201, True), (0, 10, 0, True)],
)
def test_saving_takes_no_more_than_its_share_of_the_time(planned_run, monkeypatch, wanted, took, since, late):
    assert took / SHARE == 20 * took
    cell = read_cell(planned_run(f"saving.checkpoint_seconds={wanted}"))
    saver = Saver(cell, None, Clock(0.0, 1), "")
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    saver.saved_at, saver.took = 1000.0 - since, float(took)
    assert saver.is_late is late


def test_the_driver_is_nvidias_or_amds(tmp_path, monkeypatch):
    assert len(DRIVERS) == 2
    files = [tmp_path / "nvidia", tmp_path / "amdgpu"]
    monkeypatch.setattr("harness.training.provenance.DRIVERS", tuple(map(str, files)))
    assert driver() is None
    files[1].write_text("6.16.6\n")
    assert driver() == "6.16.6"
    files[0].write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65\nGCC version: 12\n")
    assert driver() == "NVIDIA UNIX x86_64 Kernel Module  580.65"
