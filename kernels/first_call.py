"""What the first attention of a process waits for: the compilation of its forward and backward.

    python -m kernels.first_call sm_90 128

prints the processor seconds, those of the assembler included, with nothing cached. Triton's own launcher
stubs, which need a driver, are not in them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch


def seconds_of(card: str, head_dim: int) -> float:
    """In a process of its own: in this one the kernels may have been compiled before."""
    with tempfile.TemporaryDirectory() as cache:
        home = str(Path(__file__).parents[1])
        paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "TRITON_CACHE_DIR": cache, "PYTHONPATH": paths}
        command = [sys.executable, "-m", "kernels.first_call", card, str(head_dim)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(ran.stdout)


def compile_first_call(card: str, head_dim: int) -> float:
    from kernels.attention.backward import launch_backward, launch_delta
    from kernels.attention.forward import launch_forward
    from kernels.shipped import PLAIN
    from kernels.static import CARDS, compiling_for

    q = torch.empty(1, 2, 256, head_dim, dtype=torch.bfloat16)
    row = torch.empty(1, 2, 256)
    before = processor_seconds()
    with compiling_for(CARDS[card]):
        launch_forward(q, q, q, PLAIN)
        launch_delta(q, q)
        launch_backward(q, q, q, q, row, row, PLAIN)
    return processor_seconds() - before


def processor_seconds() -> float:
    """Of this process and of those it has waited for."""
    used = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    print(compile_first_call(sys.argv[1], int(sys.argv[2])))
