"""Tiles chosen by timing them on the card that is here, on request, and kept on disk.

Candidates are the shipped tiles of every card that pass the static gate of this one. Other tiles sum in
another order, so whoever trains with what is found writes it down and stays with it. The search has a process
of its own, as a comparison has (`kernels.verdicts`). It has not run on a GPU yet; what does not need one is
tested with a timer put in.

    python -m kernels.attention.autotune '{"head_dim": 64, ...}'        the search of a `Problem`
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kernels.attention.backward import launch_backward, launch_delta
from kernels.attention.forward import launch_forward
from kernels.attention.problem import Options
from kernels.attention.tuning import FEATURED, TILES, Pass, Tile, Tiles, choose_tile, padded_width
from kernels.verdicts import SECONDS, cache_folder, card_name, code_hash, driver, write_whole

TOKENS_A_CALL, HEADS = 16384, 8


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Causal attention of this head dimension over sequences of `tokens`, a power of two that bounds them."""

    head_dim: int
    dtype: str
    tokens: int
    window: int | None
    device: str

    @property
    def torch_dtype(self) -> torch.dtype:
        found = getattr(torch, self.dtype)
        assert isinstance(found, torch.dtype)
        return found

    @property
    def options(self) -> Options:
        return Options(causal=True, window=self.window, scale=self.head_dim**-0.5, softcap=None)

    @property
    def shipped(self) -> Tiles:
        tiles = (choose_tile(each, self.head_dim, self.torch_dtype, self.window is not None) for each in Pass)
        return Tiles(*tiles)


@dataclass(frozen=True)
class Found:
    """The tiles (`Tiles.flat`), and the milliseconds of every candidate by pass."""

    tiles: tuple[int, ...]
    milliseconds: dict[str, dict[str, float]]


Timer = Callable[[Pass, Tile], float]
Gate = Callable[[Pass, Tile], bool]


def bounded(tokens: int) -> int:
    """The smallest power of two that is not below: runs of similar contexts share a search."""
    return 1 << max(0, tokens - 1).bit_length()


def candidates(problem: Problem, gate: Gate) -> dict[Pass, list[Tile]]:
    """The shipped tile of each pass first, then those of the other cards that the gate lets through."""
    width, shipped = padded_width(problem.head_dim), problem.shipped
    found = {}
    for which in Pass:
        own = shipped.of(which)
        others = [table[which][width] for table in TILES.values()]
        others += [tile for (_, each, wide), tile in FEATURED.items() if (each, wide) == (which, width)]
        wide_enough = [] if problem.torch_dtype == torch.float32 else dict.fromkeys(others)
        found[which] = [own, *(tile for tile in wide_enough if tile != own and gate(which, tile))]
    return found


def search(problem: Problem, timer: Timer, gate: Gate) -> Found:
    """The fastest of each pass, the shipped one where several are equal."""
    times = {
        which: {tile: timer(which, tile) for tile in tiles}
        for which, tiles in candidates(problem, gate).items()
    }
    best = Tiles(*(min(times[which], key=times[which].__getitem__) for which in Pass))
    said = {which.value: {str(tile): ms for tile, ms in found.items()} for which, found in times.items()}
    return Found(tuple(best.flat), said)


def static_gate(problem: Problem) -> Gate:
    """Whether a tile compiles for the present card without a violation; no where its limits are unknown."""
    from kernels.shipped import violations
    from kernels.static import CARDS, compiling_for, resources

    card = CARDS.get(target_name(problem.device))
    q = torch.empty(1, 2, 256, problem.head_dim, dtype=problem.torch_dtype)
    row = torch.empty(1, 2, 256)

    def passes(which: Pass, tile: Tile) -> bool:
        if card is None:
            return False
        tiles = replace(problem.shipped, **{which.value: tile})
        with compiling_for(card) as compiled:
            if which is Pass.forward:
                launch_forward(q, q, q, problem.options, tile=tile)
            else:
                launch_backward(q, q, q, q, row, row, problem.options, None, tiles.keys_values, tiles.queries)
        (kernel,) = [each for each in compiled if each.name == f"{which.value}_kernel"]
        return not violations(resources(kernel, card), card)

    return passes


def target_name(device: str) -> str:
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


def gpu_timer(problem: Problem) -> Timer:
    """A tile that the card refuses takes for ever."""
    from kernels.bench import gpu_clock

    shape = (max(1, TOKENS_A_CALL // problem.tokens), problem.tokens, HEADS, problem.head_dim)
    q, k, v, dout = (
        torch.randn(shape, device=problem.device, dtype=problem.torch_dtype).transpose(1, 2) for _ in range(4)
    )
    shipped, options = problem.shipped, problem.options
    out, lse = launch_forward(q, k, v, options)
    delta = launch_delta(out, dout)

    def time(which: Pass, tile: Tile) -> float:
        tiles = replace(shipped, **{which.value: tile})

        def call() -> Any:
            if which is Pass.forward:
                return launch_forward(q, k, v, options, tile=tile)
            return launch_backward(dout, q, k, v, lse, delta, options, None, tiles.keys_values, tiles.queries)

        try:
            return gpu_clock(call)
        except Exception:  # out of registers or shared memory: each compiler and driver has its own type
            return float("inf")

    return time


def search_on_card(problem: Problem) -> Found:
    """Triton launches on the current device, wherever the tensors are."""
    torch.cuda.init()  # says what is missing where there is no card
    with torch.cuda.device(problem.device):
        return search(problem, gpu_timer(problem), static_gate(problem))


def search_apart(problem: Problem) -> Found:
    """Raises RuntimeError with the last line of a search that failed."""
    home = str(Path(__file__).parents[2])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "kernels.attention.autotune", json.dumps(asdict(problem))]
    try:
        ran = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {SECONDS} s") from None
    if ran.returncode:
        raise RuntimeError((ran.stderr.strip().splitlines() or [f"code {ran.returncode}"])[-1])
    return parsed(json.loads(ran.stdout.splitlines()[-1]))


def parsed(value: dict[str, Any]) -> Found:
    """Raises KeyError, TypeError or ValueError for anything but what `Found` holds."""
    tiles = Tiles.of_flat(value["tiles"])
    return Found(tuple(tiles.flat), dict(value["milliseconds"]))


def tuned(problem: Problem, search: Callable[[Problem], Found] = search_apart) -> Found:
    """What was kept for this problem, card, driver and state of the code, or a new search, which is kept."""
    about = {
        **asdict(problem),
        "device": card_name(problem.device),
        "driver": driver(),
        "code": code_hash(),
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    file = cache_folder() / f"tiles-{problem.head_dim}-{problem.dtype}-{problem.tokens}-{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged
        return parsed(json.loads(file.read_text()))
    found = search(problem)
    said = {"about": about, "said": str(Tiles.of_flat(found.tiles)), **asdict(found)}
    with suppress(OSError):  # a folder that cannot be written costs the next run a search
        write_whole(file, json.dumps(said, indent=1) + "\n")
    return found


if __name__ == "__main__":
    print(json.dumps(asdict(search_on_card(Problem(**json.loads(sys.argv[1]))))))
