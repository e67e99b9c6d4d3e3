"""plan, sweep, status and train on one frozen plan, as typed."""

import json
import shutil

import pytest
import torch

from harness.cli import main
from harness.commands import cells
from harness.data.prepare import prepare
from harness.runs import PLAN, RECORD, RunDirectory, claim, run_directories
from harness.sweep.plan import create_run, read_lines
from harness.training.cell import read_cell

AXES = 'sweep.axes=["seed=0,1","horizon.tokens=20_000"]'
WORDS = ["corpus=text_dir", "corpus.name=toy", "tokenizer=bytes", "context=32", "model=27k"]
WORDS += ["horizon.batch_tokens=512", "evaluation.tokens=2048", "hardware=cpu", "hardware.compile=never"]


@pytest.fixture
def typed(toy_root, tmp_path, monkeypatch, capsys):
    """typed("plan", AXES) -> (exit code, stdout, stderr) with the toy corpus, in group=toy."""
    monkeypatch.chdir(tmp_path)
    places = {"corpus.path": toy_root / "texts", "data_dir": toy_root / "data", "group": "toy"}

    def call(verb: str, *words: str, flags=(), **moved: object) -> tuple[int, str, str]:
        where = [f"{key}={value}" for key, value in {**places, **moved}.items()]
        code = main([verb, *flags, *WORDS, *where, *words])
        return code, *capsys.readouterr()

    return call


def frozen(tmp_path) -> str:
    return (tmp_path / "runs" / "toy" / PLAN).read_text()


def test_later_edits_do_not_reach_planned_cells(typed, tmp_path):
    assert typed("plan", AXES)[0] == 0
    before = frozen(tmp_path)
    assert typed("plan", AXES, "saving.log_steps=7", "cost.mfu=0.5")[0] == 0
    assert frozen(tmp_path) == before
    code, out, err = typed("sweep", "optim.lr=0.5")
    assert (code, out) == (2, "")
    assert "is frozen and" in err and len(err.splitlines()) == 1


def test_a_sweep_without_axes_takes_the_folders_plan(typed, tmp_path, monkeypatch, capsys):
    assert typed("plan", AXES)[0] == 0
    planned = [line.cell.run_id for line in read_lines(tmp_path / "runs" / "toy")]
    assert main(["sweep", "group=toy", "dry_run=true", "format=json"]) == 0
    assert [cell["run_id"] for cell in json.loads(capsys.readouterr().out)] == planned
    assert main(["sweep", "group=toy", "hardware=cpu", "dry_run=true"]) == 0
    assert main(["sweep", "group=toy", "hardware.threads=2", "dry_run=true"]) == 2
    assert "hardware.threads=2 would not reach it" in capsys.readouterr().err
    assert main(["sweep", "group=other", "dry_run=true"]) == 2
    assert "no cells" in capsys.readouterr().err


def test_without_axes_the_plan_is_the_one_run(typed, tmp_path):
    assert typed("plan", "seed=3")[0] == 2  # no horizon
    assert typed("plan", "seed=3", "horizon.tokens=20_000")[0] == 0
    (line,) = read_lines(tmp_path / "runs" / "toy")
    assert line.cell.run_id.startswith("27k-0.02m-s3-")


def test_a_cell_trained_by_other_code_says_so(typed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cells, "code_version", lambda: "older")
    assert typed("plan", AXES)[0] == 0
    root = tmp_path / "runs" / "toy"
    first, _ = read_lines(root)
    assert main(["train", f"cell={root / first.cell.run_id}"]) == 0
    record = RunDirectory(root / first.cell.run_id).record()
    assert record.planned_code_version == "older" != record.code_version
    capsys.readouterr()
    code, out, _ = typed("status")
    assert code == 0
    assert "trained by other code than planned with: 1 cell\n" in out
    assert "2 cells: 1 planned, 1 done" in out
    rows = json.loads(typed("plan", AXES, "format=json", "cost.price_per_device_hour=3600")[1])
    assert [row["seconds_basis"] for row in rows] == ["measured", "measured"]
    assert rows[0]["seconds"] == pytest.approx(rows[0]["tokens"] / record.tokens_per_second, rel=0.01)
    assert rows[0]["cost"] == pytest.approx(rows[0]["seconds"])


def test_runs_of_hydras_multirun_are_seen_by_status(typed):
    assert typed("train", "horizon.tokens=512", "seed=0,1", flags=["-m"])[0] == 0
    states = json.loads(typed("status", "format=json")[1])
    assert states["counts"] == {"done": 2}
    assert sorted(state["cell"]["seed"] for state in states["cells"]) == [0, 1]


def test_each_run_of_a_multirun_has_threads_of_its_own(typed, tmp_path):
    own, more = torch.get_num_threads(), torch.get_num_threads() + 2
    assert typed("train", "horizon.tokens=512", f"hardware.threads={more},null", flags=["-m"])[0] == 0
    runs = list(run_directories(tmp_path / "runs" / "toy"))
    assert {read_cell(run).config.hardware.threads: run.record().threads for run in runs} == {
        more: more,
        None: own,
    }
    assert torch.get_num_threads() == own


@pytest.mark.parametrize(
    ("verb", "words", "code", "said"),
    [
        ("plan", ['sweep.axes=["seed=0,0"]', "horizon.tokens=512"], 2, "same cell twice"),
        ("sweep", ['sweep.axes=["seed=0,0"]', "horizon.tokens=512"], 2, "same cell twice"),
        ("plan", ['sweep.axes=["seed=range(0)"]'], 2, "is empty"),
        ("sweep", ['sweep.axes=["sede=1,2"]'], 2, "no setting 'sede'"),
        ("plan", ['sweep.tied=[["seed=1,2","optim.lr=1"]]'], 2, "equally many values"),
        ("plan", ['sweep.axes=["group=a,b"]', "horizon.tokens=512"], 2, "one group"),
        (
            "plan",
            ['sweep.axes=["horizon.batch_tokens=3_200_000"]', "horizon.tokens=3_200_000"],
            1,
            "than one batch",
        ),
        ("plan", ['sweep.axes=["attention=sdpa,triton"]', "horizon.tokens=512"], 2, "attention=triton"),
        ("sweep", [], 2, "no cells"),
        ("plan", ['sweep.axes=["seed=1"]'], 2, "no horizon"),
        ("sweep", [AXES, "launcher=slurm", "detach=true"], 2, "leave detach=true out"),
        ("sweep", [AXES, "hardware=gpu"], 2, "launcher.gpus=N"),
        ("sweep", [AXES, "hardware=gpu", "launcher.gpus=2"], 2, "PyTorch sees no GPU here"),
        ("sweep", [AXES, "hardware=gpu", "launcher=slurm"], 2, "one for each task"),
    ],
)
def test_what_cannot_be_trained_cannot_be_planned(typed, tmp_path, verb, words, code, said):
    found, out, err = typed(verb, *words)
    assert (found, out) == (code, ""), err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_plan_of_gpu_cells_needs_gpus_though_nothing_is_said_of_the_hardware(typed, tmp_path, capsys):
    assert typed("plan", AXES, "hardware=gpu")[0] == 0
    for words, said in (((), "launcher.gpus=N"), (("launcher=slurm",), "one for each task")):
        assert main(["sweep", "group=toy", *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["sweep", "group=toy", "dry_run=true"]) == 0
    capsys.readouterr()
    for line in read_lines(tmp_path / "runs" / "toy"):
        run = tmp_path / "runs" / "toy" / line.cell.run_id
        run.mkdir()
        (run / RECORD).touch()
    main(["sweep", "group=toy"])
    assert "launcher.gpus" not in capsys.readouterr().err  # nothing is left to train


def test_cells_that_take_any_gpu_are_not_all_started_on_the_first(typed, monkeypatch, capsys):
    monkeypatch.setattr("harness.commands.sweep.gpus_here", lambda: 2)
    assert typed("plan", AXES, "hardware=auto")[0] == 0
    assert main(["sweep", "group=toy"]) == 2
    assert "say launcher.gpus=2, or hardware=cpu" in capsys.readouterr().err


def test_a_plan_edited_by_hand_is_refused_by_every_verb(typed, tmp_path):
    assert typed("plan", AXES)[0] == 0
    path = tmp_path / "runs" / "toy" / PLAN
    path.write_text(path.read_text().replace('"val_fraction": 0.02', '"val_fraction": 0.03', 1))
    for verb, words in (("plan", [AXES]), ("sweep", [AXES]), ("status", [])):
        code, out, err = typed(verb, *words)
        assert (code, out) == (2, ""), verb
        assert "line 1 was edited" in err


def test_another_corpus_is_another_plan_to_both_verbs(typed, tmp_path, toy_root):
    assert typed("plan", AXES)[0] == 0
    root = tmp_path / "runs" / "toy"
    claim(create_run(root, read_lines(root)[0])).end()
    shutil.copytree(toy_root / "texts", tmp_path / "texts")
    (tmp_path / "texts" / "0.txt").write_text("Other words than before, and a good many of them. " * 9)
    settings = cells_settings(tmp_path)
    prepare(settings.corpus, settings.tokenizer, tmp_path / "data", lambda *_: None)
    moved = {"corpus.path": tmp_path / "texts", "data_dir": tmp_path / "data"}
    for verb, words in (("plan", []), ("plan", ["write=false"]), ("sweep", [])):
        code, _, err = typed(verb, AXES, *words, **moved)
        assert code == 1
        assert "another plan" in err


def cells_settings(tmp_path):
    from harness.commands.plan import Settings
    from harness.config import compose_all

    return compose_all("plan", Settings, [[*WORDS, f"corpus.path={tmp_path / 'texts'}"]])[0]


ALIKE = ["schedule.warmup_tokens=512", "schedule.warmup_fraction=0.1", "schedule.cooldown_fraction=0.2"]


def horizons(*tokens: int) -> str:
    return f'sweep.axes=["horizon.tokens={",".join(map(str, tokens))}"]'


def test_horizons_of_a_trunk_cost_it_once_and_a_longer_one_only_what_is_new(typed, tmp_path, capsys):
    code, out, _ = typed("plan", horizons(10_240, 20_480), *ALIKE, "format=json")
    assert code == 0
    short, long = json.loads(out)
    assert short["trunk"] == long["trunk"] != ""
    assert (short["shared_tokens"], long["shared_tokens"]) == (0, 8_192)
    assert long["shared_flops"] == pytest.approx(0.4 * long["flops"])

    root = tmp_path / "runs" / "toy"
    assert main(["train", f"cell='{root / short['run_id']}'"]) == 0
    capsys.readouterr()
    longest = json.loads(typed("plan", horizons(10_240, 20_480, 40_960), *ALIKE, "format=json")[1])[-1]
    assert longest["shared_tokens"] == 16_384
    assert main(["train", f"cell='{root / longest['run_id']}'"]) == 0
    capsys.readouterr()
    states = json.loads(typed("status", "format=json")[1])["cells"]
    assert [state["shared_tokens"] for state in states] == [0, 0, 8_192]  # the one between was not trained
    out = typed("plan", horizons(10_240, 20_480, 40_960), *ALIKE)[1]
    assert "with trunks trained once" in out and "still to do 1 cell," in out
    assert "begun where a shorter one's trunk ends: 1 cell;" in typed("status")[1]


def test_the_plan_says_when_warm_ups_keep_horizons_apart(typed):
    hint = "if they warmed up in equally many steps"
    assert hint in typed("plan", horizons(51_200, 102_400), "write=false")[1]
    assert hint in typed("plan", horizons(2_560, 102_400), *ALIKE, "write=false")[1]  # one is cut short
    assert hint not in typed("plan", horizons(10_240, 20_480), *ALIKE, "write=false")[1]
    assert hint not in typed("plan", horizons(10_240, 20_480), "schedule=cosine", "write=false")[1]
    assert hint not in typed("plan", AXES, "write=false")[1]


def test_next_runs_are_added_to_the_plan_for_a_bet(typed, tmp_path):
    sizes, tokens = (2e4, 4e4, 8e4), (1e4, 2e4, 4e4, 8e4)
    rows = [f"{n},{d},{1.6 + 60 / n**0.35 + 300 / d**0.36}" for n in sizes for d in tokens]
    (tmp_path / "done.csv").write_text("\n".join(["params_total,tokens,loss", *rows]))
    axes = 'sweep.axes=["horizon.tokens=20_480,40_960,102_400","seed=0,1"]'
    bet = ["runs=done.csv", "params=200_000", "tokens=1_000_000"]
    code, _, err = typed("plan", axes, "next=2", *bet)
    assert (code, err.count("\n")) == (2, 1) and "budget_flops=" in err
    code, _, err = typed("plan", axes, *bet)
    assert code == 2 and "add next=K" in err
    code, _, err = typed("plan", axes, "next=2", *bet, "budget_flops=10")
    assert code == 1 and "the cheapest candidate takes" in err

    code, out, err = typed("plan", axes, "next=2", *bet, "budget_flops=2e11", "format=json")
    assert code == 0, err
    chosen = json.loads(out)
    assert chosen["candidates"] == 6 and 0 < chosen["std_after"] < chosen["std_before"]
    assert chosen["flops"] == pytest.approx(sum(cell["added_flops"] for cell in chosen["cells"]))
    assert chosen["flops"] <= 2e11
    planned = [line.cell.run_id for line in read_lines(tmp_path / "runs" / "toy")]
    assert planned == [cell["run_id"] for cell in chosen["cells"]]
    code, out, _ = typed("plan", axes, "next=9", *bet, "budget_flops=1e13", "format=json")
    assert json.loads(out)["candidates"] == 6 - len(planned)
