"""Small text, a small prepared corpus, and the command line as a user types it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.cli import TRACEBACK
from harness.config import compose_all
from harness.runs import RunDirectory
from harness.training.cell import Cell

TOY = (
    "corpus=text_dir",
    "corpus.name=toy",
    "tokenizer=bytes",
    "context=32",
    "model=27k",
    "horizon.batch_tokens=512",
    "evaluation.tokens=4096",
    "evaluation.every_tokens=20_000",
    "hardware.compile=never",
    "hardware.threads=1",
    "saving.log_steps=10",
)


def write_toy_texts(folder: Path, documents: int = 120) -> None:
    """Words of a made-up language with a Zipf law, so that a model has something to learn."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(300)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    folder.mkdir(parents=True)
    for number in range(documents):
        (folder / f"{number}.txt").write_text(" ".join(rng.choices(words, weights, k=300)))


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """What a test draws without a seed must not depend on which tests its process ran before."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a prepared toy corpus in data/."""
    from harness.data.prepare import prepare

    root = tmp_path_factory.mktemp("toy")
    write_toy_texts(root / "texts")
    settings = compose(root, "prepare", [])
    prepare(settings.corpus, settings.tokenizer, Path(settings.data_dir), lambda *_: None)
    return root


def compose(root: Path, verb: str, overrides: Sequence[str]) -> object:
    """The settings of a verb for the toy corpus below `root`."""
    import importlib

    schema = importlib.import_module(f"harness.commands.{verb}").Settings
    return compose_all(verb, schema, [[*toy_overrides(root), *overrides]])[0]


def toy_overrides(root: Path) -> list[str]:
    paths = [f"corpus.path={root / 'texts'}", f"data_dir={root / 'data'}", f"runs_dir={root / 'runs'}"]
    return [*TOY, *paths]


@pytest.fixture
def toy_cell(toy_root: Path) -> Cell:
    """A short run on the toy corpus, resolved but not on disk."""
    from harness.commands.cells import own_cell

    return own_cell(compose(toy_root, "train", ["horizon.tokens=60_000"]))


@pytest.fixture
def planned_run(toy_root: Path, tmp_path: Path) -> Callable[..., RunDirectory]:
    """Plan one toy run in a folder of its own: planned_run("seed=1", ...) -> its directory."""
    from harness.commands.cells import own_cell
    from harness.training.cell import write_cell

    def plan(*overrides: str) -> RunDirectory:
        settings = compose(toy_root, "train", ["horizon.tokens=60_000", *overrides])
        return write_cell(tmp_path / "runs", own_cell(settings))

    return plan


@pytest.fixture
def harness() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `harness <words>` in a process of its own. An error that it did not foresee is never right."""

    def call(*words: str, cwd: Path, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=environment
        )
        assert TRACEBACK not in ended.stderr, ended.stderr
        return ended

    return call
