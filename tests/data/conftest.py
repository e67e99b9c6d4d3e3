"""Fixtures of the data tests."""

from pathlib import Path

import pytest

from .synthetic import prose


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty different .txt documents."""
    path = tmp_path / "texts"
    path.mkdir()
    for index in range(30):
        (path / f"{index:02d}.txt").write_text(prose(index))
    return path
