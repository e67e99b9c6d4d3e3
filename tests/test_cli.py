"""The command line as a user meets it: help, exit codes, one line on stderr, JSON alone on stdout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import VERBS, main


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(f"harness {verb} " in line for line in lines)
    assert max(map(len, lines)) <= 120


def test_a_reader_who_has_read_enough_gets_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "harness", "plan", "--help"]
    ended = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, timeout=600)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_closed_stdout_is_no_traceback_and_no_other_file(tmp_path):
    code = "from harness.cli import main; main(['--help']); f = open('f', 'w'); f.write(str(f.fileno()))"
    words = ["bash", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(words, cwd=tmp_path, timeout=60).returncode == 0
    assert int((tmp_path / "f").read_text()) > 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_one_line():
    command = [sys.executable, "-m", "harness", "--help"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1, ended.stderr


def test_an_unknown_verb_is_two(capsys):
    assert main(["trian"]) == 2
    assert "no verb 'trian', did you mean train?" in capsys.readouterr().err


def test_wrong_input_is_two_and_one_line(harness, tmp_path):
    for words in (
        ["fit", "optimm.lr=1"],
        ["fit", "runs=nowhere"],
        ["train", "seed=x"],
        ["status", "group=none"],
    ):
        done = harness(*words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_an_unprepared_corpus_is_one_and_says_what_to_do(harness, tmp_path):
    done = harness("train", "horizon.tokens=1000", cwd=tmp_path)
    assert done.returncode == 1
    assert "harness prepare" in done.stderr


def loaded_by(*words: str) -> set[str]:
    """Top-level modules in memory after a verb has run."""
    code = (
        "import sys, json; from harness.cli import main; main(sys.argv[1:]);"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.strip().splitlines()[-1]))


def test_analysis_loads_no_torch(tmp_path):
    table = tmp_path / "table.csv"
    rows = [
        f"{n},{d},{1.7 + 400 / n**0.34 + 400 / d**0.3},{6 * n * d}"
        for n in (1e6, 3e6, 1e7, 3e7)
        for d in (1e8, 1e9, 1e10)
    ]
    table.write_text("params_total,tokens,loss,flops\n" + "\n".join(rows) + "\n")
    loaded = loaded_by("fit", f"runs={table}", "fit.bootstraps=50")
    assert not loaded & {"torch", "lightning", "datasets", "tokenizers", "triton", "matplotlib", "pandas"}


def test_help_loads_no_hydra():
    assert not loaded_by("--help") & {"hydra", "omegaconf", "numpy", "torch"}
