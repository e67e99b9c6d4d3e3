"""Real training of a tiny model: it learns, it resumes to the bit, it survives what users do to it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harness.errors import CannotAnswer, WrongInput
from harness.runs import CONFIG, METRICS, RECORD, RunDirectory, Status, claim
from harness.signals import StopFlag
from harness.training.callbacks import Validation
from harness.training.cell import read_cell
from harness.training.compiling import is_compiled, missing_compiler, wants_compile
from harness.training.run import Stopped, as_if_alone, train
from harness.training.settings import Compile, HardwareConfig
from harness.training.steps import evaluation_steps

CPU = torch.device("cpu")
compiles = pytest.mark.skipif(
    bool(missing_compiler(CPU)), reason="no g++ or no Python headers: nothing can be compiled here"
)
PAUSED = Path(__file__).with_name("paused.py")


def science_of(run: RunDirectory) -> tuple[dict, list[dict]]:
    rows = [{k: v for k, v in row.items() if k not in ("tokens_per_second", "mfu")} for row in run.metrics()]
    return run.record().science(), rows


def test_a_run_learns_and_writes_everything_down(planned_run):
    run = planned_run()
    record = train(run)
    assert record.status == "done"
    assert record.loss < 2.5 < 5.0 < run.metrics()[0]["loss"]
    assert record.tokens == record.steps * record.batch_tokens == 59_904
    nats = record.loss / 0.6931471805599453
    assert nats < record.bits_per_byte < 1.01 * nats  # a byte a token, but document ends have none
    kinds = {row["kind"] for row in run.metrics()}
    assert kinds == {"train", "validation"}
    assert [r["tokens"] for r in run.metrics() if r["kind"] == "validation"] == [19_968, 39_936, 59_904]
    provenance = json.loads((run.path / "provenance.json").read_text())
    assert provenance["packages"]["torch"] == torch.__version__


def test_equal_seeds_give_equal_runs_and_other_seeds_do_not(planned_run):
    first = train(planned_run("group=a"))
    again = train(planned_run("group=b"))
    other = train(planned_run("group=c", "seed=1"))
    assert first.loss == again.loss
    assert first.loss != other.loss


def test_accumulation_does_not_change_the_result(planned_run):
    whole = train(planned_run())
    parts = train(planned_run("hardware.activation_gib=1e-6"))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_chunked_loss_trains_the_same_model(planned_run, precision):
    settings = ("horizon.tokens=5_120", f"hardware.precision={precision}")
    whole, chunked = train(planned_run(*settings)), train(planned_run(*settings, "loss=chunked"))
    assert chunked.config_hash != whole.config_hash
    assert chunked.loss != whole.loss
    assert (whole.cross_entropy, chunked.cross_entropy) == ("full", "chunked")
    assert chunked.cross_entropy_reason == "asked for"
    assert chunked.loss == pytest.approx(whole.loss, rel=1e-5 if precision == "fp32" else 3e-3)


def test_a_run_is_compiled_however_many_of_its_process_were_before():
    from torch._dynamo.utils import counters

    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def run(size: int, threads: int) -> int:
        with as_if_alone():
            torch.set_num_threads(threads)
            torch.compile(double, dynamic=False, backend="eager")(torch.ones(size))
        return counters["stats"]["unique_graphs"]

    counters.clear()
    assert [run(size, 1) for size in range(1, 13)] == list(range(1, 13))
    assert run(1, 1) == 12, "an equal one takes what was compiled"
    assert run(1, 2) == 13, "compiled code holds the number of threads"


def test_a_finished_run_is_shown_not_repeated(planned_run):
    run = planned_run()
    first = train(run)
    stamp = (run.path / RECORD).stat().st_mtime_ns
    assert train(run) == first
    assert (run.path / RECORD).stat().st_mtime_ns == stamp


def test_killed_twice_it_ends_like_an_undisturbed_run(planned_run):
    calm, stormy = planned_run("group=calm"), planned_run("group=stormy", "saving.checkpoint_seconds=0")
    calm_record = train(calm)
    for kill_at in (30, 70):
        kill_at_step(stormy, kill_at)
        assert stormy.status() is Status.lost
    train(stormy)
    record, rows = science_of(stormy)
    assert stormy.record().attempts == 3
    differ = {"group", "run_id", "config_hash"}
    assert {k: v for k, v in record.items() if k not in differ} == {
        k: v for k, v in calm_record.science().items() if k not in differ
    }
    assert rows == science_of(calm)[1]


def kill_at_step(run: RunDirectory, step: int) -> None:
    """Train in a child process and SIGKILL it once its metrics have reached `step`."""
    child = spawn(run, step)
    wait_for_step(run, step, child)
    child.kill()
    child.wait()


def spawn(run: RunDirectory, step: int) -> subprocess.Popen:
    """Trains to `step` and no further, however late it is asked to stop."""
    command = [sys.executable, str(PAUSED), str(step), "train", f"cell='{run.path}'"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_step(run: RunDirectory, step: int, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if any(row["step"] >= step for row in run.metrics()):
            return
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.01)
    raise AssertionError(f"never reached step {step}")


def test_a_signal_saves_and_a_second_process_is_refused(planned_run):
    run = planned_run()
    child = spawn(run, 10)
    wait_for_step(run, 10, child)
    with pytest.raises(CannotAnswer, match="being trained by process"):
        train(run)
    child.send_signal(signal.SIGINT)
    assert child.wait(600) == 130
    assert "type the same command again" in child.stderr.read()
    assert run.status() is Status.interrupted
    assert list(run.checkpoints.glob("step-*.pt"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_goes_on_as_if_never_stopped(planned_run, number):
    calm, stopped = planned_run("group=calm"), planned_run("group=stopped")
    train(calm)
    child = spawn(stopped, 10)
    wait_for_step(stopped, 10, child)
    child.send_signal(number)
    assert child.wait(600) == 130
    assert stopped.status() is Status.interrupted
    train(stopped)
    assert science_of(stopped)[1] == science_of(calm)[1]


def test_a_new_attempt_clears_the_old_failure(planned_run):
    run = planned_run()
    claim(run).fail("disk full")
    assert run.status() is Status.failed
    claim(run).end()
    assert run.status() is Status.interrupted


def test_validation_steps_are_the_nearest_to_the_marks(planned_run):
    cell = read_cell(planned_run("evaluation.every_tokens=1000", "horizon.tokens=5_000"))
    assert evaluation_steps(cell) == {2, 4, 6, 8, 10}
    marks = evaluation_steps(read_cell(planned_run("evaluation.every_tokens=20_000")))
    assert marks == {39, 78, 117}


def test_a_run_that_blows_up_ends_with_a_record(planned_run):
    record = train(planned_run("optim.lr=1e20", "optim.clip_grad_norm=1e30"))
    assert record.steps < 117
    assert record.tokens == record.steps * 512
    assert record.status == "diverged"
    assert record.loss is None
    assert "not finite at step" in record.reason


def test_an_edited_config_is_refused(planned_run):
    run = planned_run()
    path = run.path / CONFIG
    path.write_text(path.read_text().replace('"lr": 0.', '"lr": 1.'))
    with pytest.raises(WrongInput, match="edited after it was frozen"):
        train(run)


def test_a_missing_corpus_is_named(planned_run):
    run = planned_run()
    value = json.loads((run.path / CONFIG).read_text())
    (run.path / CONFIG).write_text(json.dumps({**value, "tokens_path": "/nowhere"}))
    with pytest.raises((WrongInput, CannotAnswer), match="nowhere"):
        train(run)
    assert run.status() is Status.failed


def test_a_failure_leaves_its_reason(planned_run, monkeypatch):
    def explode(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Validation, "measure", explode)
    run = planned_run()
    with pytest.raises(RuntimeError, match="boom"):
        train(run)
    assert run.status() is Status.failed
    assert "boom" in (run.path / "failure.json").read_text()


def test_a_superseded_attempt_writes_no_record(planned_run, monkeypatch):
    run = planned_run()
    original = Validation.measure

    def taken_over(self: Validation, *arguments: object) -> None:
        owner = json.loads((run.path / "attempt.json").read_text())
        if owner["process_start"] != "0":
            (run.path / "attempt.json").write_text(json.dumps({**owner, "process_start": "0"}))
            claim(run)
        original(self, *arguments)

    monkeypatch.setattr(Validation, "measure", taken_over)
    with pytest.raises(Exception, match="taken over"):
        train(run)
    assert not (run.path / RECORD).exists()
    assert (run.path / METRICS).exists()


def test_triton_says_that_it_needs_a_gpu(planned_run):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(WrongInput, match="attention=triton needs a GPU"):
        train(planned_run("attention=triton"))


def test_a_gpu_that_is_not_there_is_said_so(planned_run):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(WrongInput, match="no GPU"):
        train(planned_run("hardware.device=cuda"))


def test_bf16_trains(planned_run):
    assert train(planned_run("hardware.precision=bf16")).loss < 2.6


def test_reference_attention_trains_like_sdpa(planned_run):
    reference = train(planned_run("attention=reference"))
    assert reference.loss == pytest.approx(train(planned_run()).loss, rel=1e-3)
    assert reference.attention == "reference"


@compiles
def test_compiled_training_agrees_with_eager(planned_run):
    short = ("horizon.tokens=10_000", "hardware.activation_gib=1e-3")
    own = ("hardware.compile=always", "hardware.gemm=onednn", "hardware.cpu_attention=cpp")
    compiled, eager = train(planned_run(*short, *own)), train(planned_run(*short))
    assert compiled.compiled and not eager.compiled
    assert (compiled.attention, eager.attention) == ("cpp", "sdpa")
    assert compiled.loss == pytest.approx(eager.loss, rel=1e-3)


@compiles
def test_the_cpp_attention_resumes_to_the_bit(planned_run, monkeypatch):
    monkeypatch.setattr("harness.training.module.compile_with", lambda _gemm, function: function)
    words = ("horizon.tokens=30_000", "hardware.compile=always", "hardware.cpu_attention=cpp")
    calm, stormy = planned_run("group=calm", *words), planned_run("group=stormy", *words)
    train(calm)
    flag, measure = StopFlag(), Validation.measure

    def stopping(*arguments):
        flag.signal = signal.SIGTERM
        measure(*arguments)

    monkeypatch.setattr(Validation, "measure", stopping)
    with pytest.raises(Stopped):
        train(stormy, flag=flag)
    monkeypatch.undo()
    monkeypatch.setattr("harness.training.module.compile_with", lambda _gemm, function: function)
    train(stormy)
    assert stormy.record().attempts == 2 and stormy.record().attention == "cpp"
    assert science_of(stormy)[1] == science_of(calm)[1]


def test_auto_compiles_only_where_it_can(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not wants_compile(Compile.auto, CPU)
    with pytest.raises(WrongInput, match="g\\+\\+"):
        wants_compile(Compile.always, CPU)
    with pytest.raises(WrongInput, match="this run began compiled"):
        is_compiled(HardwareConfig(), CPU, begun=True)
    assert not is_compiled(HardwareConfig(compile=Compile.always), CPU, begun=False)


@pytest.mark.parametrize(
    ("modules", "capability", "cc", "missing"),
    [
        ({"triton"}, (9, 0), "cc", ""),
        (set(), (9, 0), "cc", "triton"),
        ({"triton"}, (6, 1), "cc", "capability 7.0"),
        ({"triton"}, (9, 0), "no-such-compiler", "gcc"),
    ],
)
def test_a_gpu_is_compiled_for_by_triton_not_by_gpp(monkeypatch, modules, capability, cc, missing):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in modules else None)
    monkeypatch.setattr("shutil.which", lambda name: name if name == "cc" else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(Path, "exists", lambda _: True)  # Python.h
    monkeypatch.setenv("CC", cc)
    monkeypatch.setenv("CXX", "no-such-compiler")
    gpu = torch.device("cuda", 0)
    assert missing in missing_compiler(gpu) and bool(missing) == bool(missing_compiler(gpu))
    assert wants_compile(Compile.auto, gpu) is not bool(missing)
    if missing:
        with pytest.raises(WrongInput, match=f"always needs .*{missing}"):
            wants_compile(Compile.always, gpu)
