"""How many cells at once: measured where that is worth it, kept, and never a matter of results."""

import pytest

from harness.commands.cells import planned
from harness.report.launches import slots_line
from harness.sweep import throughput
from harness.sweep.plan import plan_line
from harness.sweep.slots import AUTO, LauncherConfig, build_slots
from harness.sweep.throughput import FOLDER, SlotChoice, Unmeasured, candidates, choose_slots
from harness.training.packing import Arrangement, Throughput

HERE = {"processor": "a"}
TWO, ONE = Arrangement(2, 1), Arrangement(1, 1)


@pytest.fixture
def lines(toy_cell):
    return 3 * [plan_line(planned(toy_cell), toy_cell.frozen)]


@pytest.mark.parametrize(
    ("cells", "width", "slots"),
    [(9, 1, [8, 4, 2, 1]), (9, 3, [2, 1]), (3, 1, [3, 1]), (9, 8, [1]), (0, 1, [1])],
)
def test_arrangements_differ_in_their_slots_alone(cells, width, slots):
    ways = candidates(cells, width, range(8))
    assert ways == [Arrangement(number, width) for number in slots]
    for way in ways:
        places = build_slots(LauncherConfig(slots=way.slots, threads_per_slot=width), list(range(8)))
        assert {len(place.cores) for place in places} == {width}


def test_what_is_measured_is_kept_for_this_machine(lines, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "WORTH", 0.0)
    monkeypatch.setattr(throughput, "TURN_SECONDS", 0.05)
    found = choose_slots(tmp_path, lines, 1, [0, 0], HERE)
    assert isinstance(found, SlotChoice)
    assert [one.arrangement for one in found.measured] == [TWO, ONE]
    assert all(rate > 0 and len(one.rates) == 3 for one in found.measured for rate in one.rates)
    assert slots_line(found).startswith(f"{found.slots} cells at once")
    (file,) = (tmp_path / FOLDER).iterdir()

    measured = []
    monkeypatch.setattr(throughput, "measure", lambda *_: measured.append(1) or Unmeasured(1, "new"))
    assert choose_slots(tmp_path, lines, 1, [0, 0], HERE) == found and not measured
    assert choose_slots(tmp_path, lines, 1, [0, 0], {"processor": "another"}) == Unmeasured(1, "new")
    file.write_text(file.read_text()[:-20])
    assert choose_slots(tmp_path, lines, 1, [0, 0], HERE) == Unmeasured(1, "new")


def test_a_short_sweep_is_not_measured(lines, tmp_path):
    found = choose_slots(tmp_path, lines, 1, [0, 0], HERE)
    assert isinstance(found, Unmeasured) and found.slots == 2
    assert "2 cells at once, not measured: training takes about" in slots_line(found)
    assert choose_slots(tmp_path, lines[:1], 1, [0, 0], HERE).slots == 1
    assert not (tmp_path / FOLDER).exists()


def test_the_fastest_arrangement_is_taken():
    slower = (Throughput(TWO, (90.0, 110.0, 100.0)), Throughput(ONE, (120.0, 125.0, 10.0)))
    found = SlotChoice("27k", slower, load=0.1, seconds=14.2, measured_at="now")
    assert (found.slots, found.ratio) == (1, 1.0)
    assert "1.00 times the tokens/s of one: 120 with 1, 100 with 2 (27k" in slots_line(found)


def test_auto_is_for_cores_and_until_then_as_many_as_there_are():
    assert len(build_slots(LauncherConfig(slots=AUTO), [0, 1, 2])) == 3
    for wrong in ("many", 0, True):
        with pytest.raises(ValueError, match=r"launcher\.slots must be auto or at least 1"):
            LauncherConfig(slots=wrong)
    with pytest.raises(ValueError, match="compares cores"):
        LauncherConfig(slots=AUTO, gpus=2)
