"""From text to a scored forecast through the command line alone, as a user would type it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.runs import RECORD, RunDirectory, RunRecord, claim, run_directories
from harness.sweep.plan import create_run, read_lines
from harness.training.cell import Cell, read_cell

WORDS = [
    "corpus=text_dir",
    "corpus.name=toy",
    "tokenizer=bpe_512",
    "context=32",
    "horizon.batch_tokens=512",
    "evaluation.tokens=2048",
    "hardware.compile=never",
    "hardware.threads=1",
]
GRID = 'sweep.axes=["model=27k,56k,100k,160k","horizon.tokens=20_000,40_000,80_000,160_000"]'
FOUR = 'sweep.axes=["model=27k,56k","horizon.tokens=10_000,20_000"]'


@pytest.fixture
def words(toy_root, tmp_path) -> list[str]:
    return [*WORDS, f"corpus.path={toy_root / 'texts'}"]


def record_of(cell: Cell, loss: float) -> RunRecord:
    """As training would write it, with a loss of our choice."""
    shape, horizon = cell.shape, cell.horizon
    return RunRecord(
        run_id=cell.run_id,
        group=cell.config.group,
        status="done",
        params_total=shape.params.total,
        params_non_embedding=shape.params.non_embedding,
        params_embedding=shape.params.embedding,
        params_head=shape.params.head,
        tokens=horizon.tokens,
        unique_tokens=horizon.tokens,
        epochs=1.0,
        steps=horizon.steps,
        flops=cell.flops,
        loss=loss,
        loss_kind="planted",
        bits_per_byte=loss,
        train_loss=loss,
        lr=cell.peak_lr,
        batch_tokens=horizon.batch_tokens,
        schedule="wsd",
        optimizer="adamw",
        width=shape.width,
        depth=shape.depth,
        n_heads=shape.n_heads,
        context=shape.context,
        vocab_size=shape.vocab_size,
        seed=cell.config.seed,
        data_seed=cell.config.data_seed,
        precision="fp32",
        attention="sdpa",
        compiled=False,
        corpus_hash=cell.corpus_hash,
        tokenizer_hash=cell.tokenizer_hash,
        config_hash=cell.config_hash,
        code_version="planted",
    )


def plant(root) -> None:
    """Finish every planned run with a loss from a known law and .2 % of noise."""
    rng = np.random.default_rng(0)
    for line in sorted(read_lines(root), key=lambda line: line.cell.run_id):
        run = create_run(root, line)
        cell = read_cell(run)
        n, d = cell.shape.params.total, cell.horizon.tokens
        loss = (1.8 + 60 / n**0.4 + 50 / d**0.35) * np.exp(0.002 * rng.standard_normal())
        claim(run).finish(record_of(cell, float(loss)))


def test_text_in_scored_forecast_out(harness, words, tmp_path):
    def run(verb: str, *more: str, code: int = 0) -> str:
        done = harness(verb, *words, *more, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    prepared = json.loads(run("prepare", "format=json"))
    assert prepared["train_tokens"] > 20_000 and not prepared["cached"]
    assert json.loads(run("prepare", "format=json"))["cached"]

    run("sweep", "group=four", FOUR)
    assert json.loads(run("status", "group=four", "format=json"))["counts"] == {"done": 4}
    assert "4 usable rows cannot determine the 5 free parameters" in run("fit", "group=four", code=1)

    run("plan", "group=grid", GRID, "write=true")
    plant(tmp_path / "runs" / "grid")
    fit = json.loads(run("fit", "group=grid", "format=json"))
    assert (fit["status"], fit["n"]) == ("identified", 16)
    assert fit["params"]["alpha"] == pytest.approx(0.4, abs=0.1)

    bet = ["group=bet", "runs=runs/grid", "model=220k", "horizon.tokens=200_000"]
    forecast = json.loads(run("forecast", *bet, "format=json"))
    low, high = forecast["interval"]
    assert low < forecast["loss"] < high
    again = json.loads(run("forecast", *bet, "format=json"))
    assert again["seal"] == forecast["seal"]
    assert "not finished" in run("score", *bet, code=1)

    run("train", *bet)
    score = json.loads(run("score", *bet, "format=json"))
    assert score["predicted"] == forecast["loss"]
    assert score["started_after_seal"] is True
    assert score["error"] == pytest.approx(forecast["loss"] / score["actual"] - 1)

    run("report", *bet)
    page = (tmp_path / "runs" / "bet" / "report.html").read_text()
    assert f"actual {score['actual']:.4f}" in page
    assert page.count("<svg") == 4
    assert "http://www.w3.org" in page and "<script" not in page and "src=" not in page

    seal = tmp_path / "runs" / "bet" / "forecast.json"
    seal.write_text(seal.read_text().replace(f"{forecast['loss']}", f"{score['actual']}"))
    assert "edited" in run("score", *bet, code=2)


def test_no_bet_after_the_run_began(harness, words, tmp_path):
    for verb, more in (("prepare", []), ("plan", ["group=grid", GRID, "write=true"])):
        assert harness(verb, *words, *more, cwd=tmp_path).returncode == 0
    plant(tmp_path / "runs" / "grid")
    bet = ["group=bet", "runs=runs/grid", "model=27k", "horizon.tokens=5_000"]
    assert harness("train", *words, *bet, cwd=tmp_path).returncode == 0
    late = harness("forecast", *words, *bet, cwd=tmp_path)
    assert late.returncode == 1
    assert "already begun" in late.stderr


def test_runs_of_two_corpora_do_not_mix(harness, words, tmp_path):
    for verb, more in (("prepare", []), ("plan", ["group=grid", GRID, "write=true"])):
        assert harness(verb, *words, *more, cwd=tmp_path).returncode == 0
    root = tmp_path / "runs" / "grid"
    plant(root)
    odd = next(run_directories(root))
    record = replace(odd.record(), corpus_hash="f" * 64)
    (odd.path / RECORD).unlink()
    claim(RunDirectory(odd.path)).finish(record)
    done = harness("fit", *words, "group=grid", cwd=tmp_path)
    assert done.returncode == 1
    assert "different corpus_hash" in done.stderr


def test_hydras_own_multirun_lands_in_the_same_store(harness, words, tmp_path):
    assert harness("prepare", *words, cwd=tmp_path).returncode == 0
    done = harness("train", "-m", *words, "model=27k", "horizon.tokens=5_000", "seed=0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = list(run_directories(tmp_path / "runs" / "adhoc"))
    assert sorted(run.record().seed for run in runs) == [0, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "runs"]
