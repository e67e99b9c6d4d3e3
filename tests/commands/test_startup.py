"""What a verb must not load before it starts to work; the seconds themselves are `harness bench startup`."""

import subprocess
import sys

from harness.commands.startup import FIRST_ROW

HEAVY = {"torch", "lightning", "datasets", "tokenizers", "triton", "scipy", "pyarrow", "matplotlib", "jinja2"}


def test_a_fit_reaches_its_first_row_without_what_is_slow_to_import(tmp_path):
    command = [sys.executable, "-c", FIRST_ROW, "table.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "harness.laws.fit" in loaded and not loaded & HEAVY
