"""Tiles chosen by timing: with a timer and a card put in, since there is no GPU. What is kept is for one
card, driver and state of the code, readable, and replaced where it is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from kernels.attention import autotune
from kernels.attention.autotune import Found, Problem, bounded, candidates, search, tuned
from kernels.attention.tuning import TILES, Family, Pass, Tile, Tiles
from kernels.static import CARDS, compiling_for

PROBLEM = Problem(head_dim=64, dtype="bfloat16", tokens=1024, window=None, device="cuda")
HOPPER, SMALL = (TILES[card] for card in (Family.sm_90, Family.small))


@pytest.fixture(autouse=True)
def a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "card_name", lambda device: "a card")
    monkeypatch.setattr(autotune, "target_name", lambda device: "sm_90")
    with compiling_for(CARDS["sm_90"]):
        yield


def every(which: Pass, tile: Tile) -> bool:
    return True


def test_candidates_are_the_shipped_tiles_that_pass_the_gate() -> None:
    found = candidates(PROBLEM, every)
    assert found[Pass.forward][0] == HOPPER[Pass.forward][64]
    assert SMALL[Pass.forward][64] in found[Pass.forward]
    assert all(len(set(tiles)) == len(tiles) > 1 for tiles in found.values())
    own = candidates(PROBLEM, lambda which, tile: False)
    assert own == {which: [HOPPER[which][64]] for which in Pass}
    assert candidates(replace(PROBLEM, dtype="float32"), every).keys() == set(Pass)
    assert all(len(tiles) == 1 for tiles in candidates(replace(PROBLEM, dtype="float32"), every).values())


def test_the_fastest_of_each_pass_is_taken_and_the_shipped_one_where_they_are_equal() -> None:
    def timer(which: Pass, tile: Tile) -> float:
        faster = which is Pass.queries and tile == SMALL[Pass.queries][64]
        return 1.0 if faster else float("inf") if tile.warps == 8 and which is Pass.forward else 2.0

    found = Tiles.of_flat(search(PROBLEM, timer, every).tiles)
    assert found.queries == SMALL[Pass.queries][64]
    assert found.keys_values == HOPPER[Pass.keys_values][64]
    assert found.forward.warps != 8, "a tile that the card refuses is never the fastest"
    said = search(PROBLEM, timer, every).milliseconds
    assert said["queries"][str(SMALL[Pass.queries][64])] == 1.0


def test_the_static_gate_refuses_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "target_name", lambda device: "sm_120")
    gate = autotune.static_gate(replace(PROBLEM, head_dim=128))
    assert not gate(Pass.forward, Tile(128, 128, 8, 3))
    monkeypatch.setattr(autotune, "target_name", lambda device: "sm_75")
    assert not autotune.static_gate(PROBLEM)(Pass.forward, HOPPER[Pass.forward][64])


FLAT = (64, 64, 4, 2, 1) * 3


def counting() -> tuple[list[Problem], object]:
    asked: list[Problem] = []

    def look(problem: Problem) -> Found:
        asked.append(problem)
        return Found(FLAT, {"forward": {"a tile": 0.5}})

    return asked, look


def test_what_was_found_is_kept_readable_for_this_problem_card_driver_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, look = counting()
    assert [tuned(PROBLEM, look).tiles for _ in range(2)] == [FLAT, FLAT]
    assert len(asked) == 1
    (file,) = tmp_path.rglob("tiles-64-bfloat16-1024-*.json")
    kept = json.loads(file.read_text())
    assert kept["about"]["device"] == "a card"
    assert "warps" in kept["said"]
    for other in (
        replace(PROBLEM, tokens=2048),
        replace(PROBLEM, window=9),
        replace(PROBLEM, dtype="float16"),
    ):
        tuned(other, look)
    for name in ("code_hash", "card_name", "driver"):
        with monkeypatch.context() as changed:
            changed.setattr(autotune, name, lambda *_: "another")
            tuned(PROBLEM, look)
    assert len(asked) == 7


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"tiles": [1, 2], "milliseconds": {}}', '{"tiles": null}']
)
def test_a_damaged_file_is_searched_for_anew(damage: str, tmp_path: Path) -> None:
    asked, look = counting()
    tuned(PROBLEM, look)
    (file,) = tmp_path.rglob("tiles-*.json")
    file.write_text(damage)
    assert tuned(PROBLEM, look) == tuned(PROBLEM, look)
    assert len(asked) == 2
    assert json.loads(file.read_text())["tiles"]
    assert len(list(file.parent.iterdir())) == 1, "no draft is left"


def test_an_unwritable_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, look = counting()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    tuned(PROBLEM, look)
    tuned(PROBLEM, look)
    assert len(asked) == 2


def test_a_search_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match=r"NVIDIA|CUDA|driver"):
        autotune.search_apart(PROBLEM)
    monkeypatch.setattr(autotune.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="code 1"):
        autotune.search_apart(PROBLEM)


def test_contexts_share_a_search_by_powers_of_two() -> None:
    assert [bounded(tokens) for tokens in (1, 2, 3, 1000, 1024, 1025)] == [1, 2, 4, 1024, 1024, 2048]


def test_numbers_and_tiles() -> None:
    tiles = Tiles(Tile(128, 64, 8, 2), Tile(64, 32, 4, 1, hoist=False), Tile(16, 16, 4, 3))
    assert Tiles.of_flat(tiles.flat) == tiles
