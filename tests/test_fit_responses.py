"""`harness fit` for accuracy, coverage, reward and tuned settings, as a person types it."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.commands.fit import Settings
from harness.commands.observe import observe
from harness.commands.respond import respond
from harness.config import compose_all
from harness.errors import CannotAnswer, WrongInput
from harness.laws.config import OTHER_RESPONSES, Resampling
from harness.laws.fit import fit_law
from harness.laws.intervals import uncertainty
from harness.laws.responses.catalogue import RESPONSE_LAWS

from .public_data import public_table
from .test_runs import finished_run


def table(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))


def reward_run(path, largest):
    compute = np.linspace(100, largest, 30)
    reward = 0.2 + 0.41 / (1 + (3000 / compute) ** 1.97)
    table(path, "gpu_hours,score,stage", zip(compute, reward, ["rl"] * 30, strict=True))


WORDS = ("law=reward", "columns={compute: gpu_hours, reward: score}", "fit.bootstraps=20")


def asked(*words):
    """What `harness fit` does with these words, in this process."""
    settings = compose_all("fit", Settings, [list(words)])[0]
    respond(settings, settings.at, settings.checkpoints, figure=settings.figure)


def test_json_has_the_shape_of_every_other_fit(tmp_path, monkeypatch, capsys):
    reward_run(tmp_path / "t.csv", 8000)
    monkeypatch.chdir(tmp_path)
    asked(*WORDS, "runs=t.csv", 'where=["stage=rl"]', "at=[[16000],[32000.0]]", "format=json")
    found = json.loads(capsys.readouterr().out)
    issued = {"law", "status", "params", "objective", "n", "dropped", "conventions", "intervals", "data_hash"}
    assert issued <= set(found)
    assert abs(found["params"]["A"] - 0.61) < 1e-6
    assert [point["compute"] for point in found["predictions"]] == [16000, 32000]
    assert set(found["intervals"]) == {"R0", "A", "C_mid", "B"}


def test_a_plateau_that_is_not_seen_ends_with_one_and_its_numbers(harness, tmp_path):
    reward_run(tmp_path / "t.csv", 900)
    done = harness("fit", *WORDS, "runs=t.csv", "at=[[1000]]", cwd=tmp_path)
    assert done.returncode == 1
    assert "reward: not_identified" in done.stdout
    assert "90% interval" in done.stdout
    assert "beyond the largest compute 900" in done.stderr


def test_every_law_of_another_response_is_in_the_catalogue():
    assert set(RESPONSE_LAWS) == OTHER_RESPONSES


@pytest.mark.parametrize(
    "words, said",
    [
        (("law=reward",), "runs=table.csv"),
        ((*WORDS, "runs=t.csv", "at=[[1,2]]"), "wants positive compute"),
        ((*WORDS, "runs=t.csv", "at=[[many]]"), "rows of numbers"),
        (("law=reward", "runs=t.csv"), "no column 'compute'"),
        ((*WORDS, "runs=t.csv", "checkpoints=t.csv"), "checkpoints= is for law=downstream"),
        (("law=chinchilla", "runs=t.csv", "checkpoints=t.csv"), "checkpoints="),
        ((*WORDS, "runs=t.csv", "fit.intervals=profile"), "fit.intervals=bootstrap"),
        (("law=learning_rate", "runs=t.csv", "fit.resampling=residuals"), "use fit.resampling=cases"),
        (("law=batch_size", "runs=t.csv", "fit.resampling=sizes"), "redraws whole rungs"),
        (("law=learning_rate", "runs=t.csv", "where=[stage=rl]"), "is quoted twice"),
        (("law=learning_rate", "runs=t.csv", "where=[stage!=rl]"), "is quoted twice"),
    ],
)
def test_wrong_words(tmp_path, monkeypatch, words, said):
    reward_run(tmp_path / "t.csv", 8000)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongInput, match=re.escape(said)):
        asked(*words)


def test_an_empty_count_of_parameters_names_the_one_to_choose():
    said = "params_total is empty on all 708 rows; add fit.params=non_embedding"
    with pytest.raises(WrongInput, match=re.escape(said)):
        asked("law=batch_size", f"runs={public_table('steplaw_moe.csv')}")


def test_the_words_of_a_refused_resampling_can_be_typed(tmp_path, monkeypatch):
    """Three sizes are too few to redraw: the setting that the refusal names is the one that then works."""
    rows = [(n, d, 2 + n**-0.3 * 100 + d**-0.3 * 400) for n in (1e6, 1e7, 1e8) for d in (1e8, 1e9, 1e10)]
    table(tmp_path / "t.csv", "params_total,tokens,loss", rows)
    monkeypatch.chdir(tmp_path)
    words = ["runs=t.csv", "fit.bootstraps=20"]

    def drawn(*more):
        settings = compose_all("fit", Settings, [[*words, *more]])[0]
        rows = observe(settings, settings.fit.params)
        return uncertainty(fit_law(rows, settings.fit.law), settings.fit).replicates

    with pytest.raises(CannotAnswer) as caught:
        drawn("fit.resampling=sizes")
    advised = str(caught.value).split("use ")[1]
    assert advised == "fit.resampling=residuals"
    assert drawn(advised).resampling is Resampling.residuals


def test_losses_off_the_law_of_their_step_are_refused(capsys):
    """All 35 runs, up to 25 times the compute-optimal ratio: 2.1 % off, more than a law of N and D may be."""
    words = ("law=downstream_error", "columns={error: err_avg17}", "fit.bootstraps=0")
    with pytest.raises(CannotAnswer, match=r"the residual is 2\.11% of the loss, the limit 2%"):
        asked(*words, f"runs={public_table('gadre_overtrain.csv')}", "where=['group=rpj']", "format=json")
    assert json.loads(capsys.readouterr().out)["status"] == "not_identified"


def tuning_sweep(root, sizes, best_of_largest=1e-3):
    """Finished runs of two lengths at each size, five rates each, and one that diverged."""
    for size in sizes:
        best = best_of_largest if size == max(sizes) else 1e-3
        for tokens in (10_000, 40_000):
            for number, lr in enumerate(1e-3 * 2.0 ** np.arange(-2, 3)):
                place = {"params_total": size, "tokens": tokens, "lr": float(lr), "batch_tokens": 512}
                loss = 3 * np.exp(0.02 * np.log(lr / best) ** 2)
                finished_run(root / f"{size}-{tokens}-{number}", **place, loss=float(loss))
    broken = {"params_total": max(sizes), "tokens": 300, "lr": 8e-3, "batch_tokens": 512}
    finished_run(root / "broken", **broken, loss=None, status="diverged")


def test_the_rates_of_a_sweep_of_run_directories(harness, tmp_path):
    tuning_sweep(tmp_path / "lr", (1000, 2000, 4000))
    figure = tmp_path / "lr.svg"
    words = "law=learning_rate", "runs=lr", "figure=lr.svg", "fit.bootstraps=20"
    said = harness("fit", *words, cwd=tmp_path).stdout
    assert said.rstrip().endswith("figure lr.svg: harness fit " + " ".join(words))
    assert said.count("inside") == 6 and "learning_rate: identified" in said
    assert figure.read_text().count("1k, 10k") == 1
    ElementTree.fromstring(figure.read_text().replace("xlink:", ""))


def test_few_rungs_are_shown_and_no_law_is_claimed(tmp_path, capsys):
    """The larger size would like a rate beyond the one that diverged."""
    tuning_sweep(tmp_path / "lr", (1000, 2000), best_of_largest=1e-2)
    with pytest.raises(CannotAnswer, match=r"not identified: .*4 rungs.* needs at least 4"):
        asked("law=learning_rate", f"runs={tmp_path / 'lr'}", "fit.bootstraps=20", "at=[[1e4,1e5]]")
    said = capsys.readouterr().out
    assert said.count("inside") == 2 and "parameter" not in said
    with pytest.raises(CannotAnswer, match="batch_tokens does not vary"):
        asked("law=batch_size", f"runs={tmp_path / 'lr'}", "format=json")
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "not_identified" and found["params"] == {} and len(found["cells"]) == 4
