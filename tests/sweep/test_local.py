"""The queue on this machine, with the real trainer on toy cells."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.runs import FAILURE, METRICS, RECORD, RunDirectory, Status, run_directories
from harness.sweep import gpus
from harness.sweep.detach import QUEUE_LOG, detach
from harness.sweep.local import LOG, Queue, start
from harness.sweep.plan import create_run, read_lines
from harness.sweep.queues import living_queues
from harness.sweep.slots import LauncherConfig, build_slots, own_cores
from tests.sweep.test_queues import planned_sweep


def test_slots_share_out_cores_and_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pairs = build_slots(LauncherConfig(threads_per_slot=2), [0, 1, 2, 3])
    assert [slot.cores for slot in pairs] == [(0, 1), (2, 3)]
    gpus = build_slots(LauncherConfig(gpus=2, threads_per_slot=2), [0, 1, 2, 3])
    assert [slot.gpu for slot in gpus] == ["0", "1"]
    assert [len(slot.cores) for slot in build_slots(LauncherConfig(gpus=2), [*range(16)])] == [8, 8]
    assert [len(slot.cores) for slot in build_slots(LauncherConfig(gpus=1, slots=3), [0, 1])] == [1, 1, 1]
    assert len({*build_slots(LauncherConfig(slots=4), [0, 1])}) == 4
    assert len(build_slots(LauncherConfig(threads_per_slot=8), [0, 1])) == 1
    assert len(build_slots(LauncherConfig(slots=3), [0, 1])) == 3


def test_slots_take_the_gpus_that_this_process_was_given(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-ab,7")
    slots = build_slots(LauncherConfig(gpus=2, slots=4, threads_per_slot=2), own_cores() * 2)
    assert [slot.gpu for slot in slots] == ["4", "GPU-ab", "4", "GPU-ab"]
    assert start(tmp_path, slots[1], ["env"]).wait() == 0
    told = (tmp_path / LOG).read_text().splitlines()
    assert {"CUDA_VISIBLE_DEVICES=GPU-ab", "OMP_NUM_THREADS=2"} <= {*told}
    for hidden, shown in (("", 0), ("4,7", 2), ("4, 7,-1,1", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        with pytest.raises(WrongInput, match=f"launcher.gpus=3 but .* shows only {shown}"):
            build_slots(LauncherConfig(gpus=3), [0])


def test_hip_and_cuda_are_told_of_the_same_gpu(monkeypatch, tmp_path):
    """HIP heeds its own variable first: a slot that set CUDA's alone would leave all cells on one GPU."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    slots = build_slots(LauncherConfig(gpus=2), [0])
    assert [slot.gpu for slot in slots] == ["2", "3"]
    assert start(tmp_path, slots[1], ["env"]).wait() == 0
    told = (tmp_path / LOG).read_text().splitlines()
    assert {"CUDA_VISIBLE_DEVICES=3", "HIP_VISIBLE_DEVICES=3"} <= {*told}


@pytest.mark.parametrize(
    ("names", "here", "said"),
    [
        (["0", "1"], 2, ""),
        (["0", "1"], 1, "launcher.gpus=2 but PyTorch sees 1 here; say launcher.gpus=1"),
        (["0"], 0, "launcher.gpus=1 but PyTorch sees no GPU here"),
        (["MIG-a", "MIG-b"], 1, ""),
        (["MIG-a", "MIG-b"], 0, "sees no GPU"),
    ],
)
def test_no_slot_is_without_a_gpu(monkeypatch, names, here, said):
    """Its cells would fail within seconds each, and it would go through the whole sweep so."""
    monkeypatch.setattr(gpus, "gpus_here", lambda: here)
    if not said:
        gpus.refuse_missing_gpus(names)
        return
    with pytest.raises(WrongInput, match=re.escape(said)):
        gpus.refuse_missing_gpus(names)


def test_gpus_are_counted_by_another_process_where_a_driver_is(monkeypatch, tmp_path):
    counted = gpus.gpus_here.__wrapped__
    monkeypatch.setattr(gpus, "DRIVERS", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr(gpus, "COUNT", "print(3)")
    assert counted() == 0
    (tmp_path / "nvidiactl").touch()
    assert counted() == 3
    monkeypatch.setattr(gpus, "COUNT", "raise ImportError('no torch')")
    assert counted() == 0


ON_A_GPU = """
import os, sys
from pathlib import Path
from harness.runs import RunDirectory, claim
from tests.sweep.standin import blank_record
run = RunDirectory(Path(sys.argv[1]))
if os.environ["CUDA_VISIBLE_DEVICES"] in sys.argv[2].split(","):
    claim(run).fail("CUDA error: unspecified launch failure")
else:
    claim(run).finish(blank_record(run_id=run.run_id, status="done"))
"""


@pytest.mark.parametrize("dead", ["1", "0,1"])
def test_a_gpu_that_fails_whatever_runs_there_fails_one_cell_not_the_sweep(
    tmp_path, monkeypatch, capsys, dead
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asked = []

    def trouble_with(gpu: str) -> str:
        asked.append(gpu)
        return "RuntimeError: no CUDA-capable device is detected" if gpu in dead.split(",") else ""

    monkeypatch.setattr("harness.sweep.local.trouble_with", trouble_with)
    root = planned_sweep(tmp_path, "abcde")
    slots = build_slots(LauncherConfig(gpus=2), own_cores())
    command = [sys.executable, "-c", ON_A_GPU]
    queue = Queue(root, read_lines(root), slots, False, lambda run: [*command, str(run), dead])
    if dead == "0,1":
        with pytest.raises(CannotAnswer, match=r"no GPU can be used any more .*; mend that"):
            queue.run(lambda _: None)
    else:
        queue.run(lambda _: None)
    counted = Counter(state.status for state in queue.states.values())
    assert counted[Status.failed] == len(dead.split(","))
    assert asked == sorted(dead.split(","), key=asked.index) and len(asked) == counted[Status.failed]
    assert counted[Status.planned if dead == "0,1" else Status.done] == 5 - len(asked)
    assert "GPU 1 cannot be used, its slot is given up: RuntimeError" in capsys.readouterr().err


def test_why_a_gpu_cannot_be_used_is_asked_of_a_process_that_sees_it_alone(monkeypatch):
    seen = "import os; gpu = os.environ['CUDA_VISIBLE_DEVICES']\n"
    for use, said in (
        ("assert gpu == '3'", ""),
        ("raise RuntimeError('CUDA error: ' + gpu + '\\nCUDA kernel errors')", "RuntimeError: CUDA error: 3"),
        ("os._exit(7)", "exit code 7"),
    ):
        monkeypatch.setattr(gpus, "USE", seen + use)
        assert gpus.trouble_with("3") == said


@pytest.fixture
def sweep_words(toy_root: Path, tmp_path: Path) -> list[str]:
    overrides = [*TOY_SWEEP, f"corpus.path={toy_root / 'texts'}", f"data_dir={toy_root / 'data'}"]
    return ["sweep", *overrides, f"runs_dir={tmp_path}"]


TOY_SWEEP = [
    "corpus=text_dir",
    "corpus.name=toy",
    "tokenizer=bytes",
    "context=32",
    "horizon.batch_tokens=512",
    "evaluation.tokens=2048",
    "hardware.compile=never",
    "hardware.threads=1",
    "saving.checkpoint_seconds=0",
    "group=toy",
    'sweep.axes=["model=27k","horizon.tokens=20_000,40_000","seed=0,1"]',
]


def records(root: Path) -> dict[str, dict]:
    return {
        run.run_id: run.record().science() for run in run_directories(root) if (run.path / RECORD).exists()
    }


def stamps(root: Path) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in root.glob(f"*/{RECORD}")}


def test_a_killed_sweep_goes_on_and_repeats_no_finished_cell(harness, sweep_words, tmp_path):
    root = tmp_path / "toy"
    first = subprocess.Popen(
        [sys.executable, "-m", "harness", *sweep_words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 600
    while len(stamps(root)) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait()
    wait_for_orphans(root)
    finished = stamps(root)
    assert 1 <= len(finished) <= 4
    again = harness(*sweep_words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "4 cells: 4 done" in again.stdout
    assert {name: stamp for name, stamp in stamps(root).items() if name in finished} == finished

    calm = harness(*sweep_words[:-1], f"runs_dir={tmp_path / 'calm'}", cwd=tmp_path)
    assert calm.returncode == 0, calm.stderr
    assert records(tmp_path / "calm" / "toy") == records(root)


def wait_for_orphans(root: Path) -> None:
    """Children die with their queue."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if all(run.status() is not Status.running for run in run_directories(root)):
            return
        time.sleep(0.05)
    raise AssertionError("a cell outlived its queue")


def test_ctrl_c_saves_and_exits_130(sweep_words, tmp_path):
    """A cell that has saved nothing yet: saving after every span, on a slow disk, takes the grace to stop."""
    words = [
        w if not w.startswith("sweep.axes") else 'sweep.axes=["model=27k","horizon.tokens=90_000_000"]'
        for w in sweep_words
    ]
    child = subprocess.Popen(
        [sys.executable, "-m", "harness", *words, "saving.checkpoint_seconds=1e6"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    root = tmp_path / "toy"
    try:
        deadline = time.monotonic() + 600
        while not list(root.glob(f"*/{METRICS}")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not list(root.glob("*/checkpoints/*"))
        child.send_signal(signal.SIGINT)
        assert child.wait(600) == 130
    finally:
        child.terminate()
    assert "type the same command again" in child.stderr.read()
    (run,) = run_directories(root)
    assert run.status() is Status.interrupted
    assert list(run.checkpoints.glob("step-*.pt"))


def heed_ctrl_c() -> None:
    """A shell that starts these tests with `&` in a script lets them, and all they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_failing_cell_does_not_stop_the_others_and_is_retried_on_request(harness, sweep_words, tmp_path):
    words = [
        w if not w.startswith("sweep.axes") else 'sweep.axes=["model=27k","horizon.tokens=20_000","seed=0,1"]'
        for w in sweep_words
    ]
    assert harness("plan", *words[1:], cwd=tmp_path).returncode == 0
    broken, fine = (create_run(tmp_path / "toy", line) for line in read_lines(tmp_path / "toy"))
    in_the_way = broken.path / "provenance.json"
    in_the_way.mkdir()
    done = harness(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert f"1 of 2 cells are not finished, e.g. {broken.run_id} failed: cannot write" in done.stderr
    assert "retry_failed=true tries again what failed" in done.stderr
    assert fine.status() is Status.done
    assert "cannot write" in (broken.path / FAILURE).read_text()
    in_the_way.rmdir()
    assert harness(*words, cwd=tmp_path).returncode == 1  # not retried unless asked
    assert harness(*words, "retry_failed=true", cwd=tmp_path).returncode == 0
    assert RunDirectory(broken.path).status() is Status.done


def test_status_counts_and_plan_spends_nothing(harness, sweep_words, tmp_path):
    plan = harness("plan", *sweep_words[1:], "format=json", "write=false", cwd=tmp_path)
    cells = json.loads(plan.stdout)
    assert [cell["status"] for cell in cells] == ["planned"] * 4
    assert not (tmp_path / "toy").exists()
    assert harness("plan", *sweep_words[1:], cwd=tmp_path).returncode == 0
    status = harness("status", *sweep_words[1:], "format=json", cwd=tmp_path)
    assert json.loads(status.stdout)["counts"] == {"planned": 4}
    assert sorted(path.name for path in (tmp_path / "toy").glob("[!.]*")) == ["plan.jsonl"]


def test_moved_data_are_found_again(harness, sweep_words, toy_root, tmp_path):
    root = tmp_path / "toy"
    assert harness("plan", *sweep_words[1:], cwd=tmp_path).returncode == 0
    before = read_lines(root)
    create_run(root, before[0])
    shutil.copytree(toy_root / "data", tmp_path / "moved")
    moved = [w if not w.startswith("data_dir") else f"data_dir={tmp_path / 'moved'}" for w in sweep_words[1:]]
    assert harness("plan", *moved, cwd=tmp_path).returncode == 0
    after = read_lines(root)
    assert [line.cell for line in after] == [line.cell for line in before]
    assert all("moved" in line.frozen["tokens_path"] for line in after)
    assert "moved" in create_run(root, after[0]).config()["tokens_path"]


def test_a_detached_sweep_returns_at_once_and_gets_done(harness, sweep_words, tmp_path):
    started = harness(*sweep_words, "detach=true", cwd=tmp_path)
    assert started.returncode == 0, started.stderr
    root = tmp_path / "toy"
    [queue] = living_queues(root)
    assert f"process {queue.process.pid} works" in started.stdout
    assert set(queue.cells) == {line.cell.run_id for line in read_lines(root)}
    deadline = time.monotonic() + 600
    while "4 done" not in (root / QUEUE_LOG).read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(stamps(root)) == 4
    assert living_queues(root) == []
    assert "nothing was left to do" in harness(*sweep_words, "detach=true", cwd=tmp_path).stdout


def test_a_detached_sweep_that_fails_at_once_says_so(tmp_path):
    with pytest.raises(CannotAnswer, match=r"there is no setting .*bogus.*queue\.log"):
        detach(tmp_path, ["bogus=1"])
