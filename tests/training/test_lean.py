"""What a cell need not load before it trains."""

import subprocess
import sys

UNUSED = {"torchmetrics", "scipy", "matplotlib", "datasets", "tokenizers", "hydra", "pandas"}
CODE = """
import sys, harness.training.run
print(*{name.split(".")[0] for name in sys.modules})
from torchmetrics import MeanMetric
"""


def test_a_cell_starts_without_what_it_never_uses():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not UNUSED & set(done.stdout.split())
