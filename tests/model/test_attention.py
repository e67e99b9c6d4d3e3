from dataclasses import replace
from itertools import product

import pytest
import torch

from harness.errors import WrongInput
from harness.model.attention import Tuning, build_attention, norm_rotate_before, reference, sdpa, triton
from harness.model.proof import warn
from harness.model.settings import AttentionKind, CpuAttention
from harness.shape import Mixer, ModelConfig, build_shape
from kernels import verdicts
from kernels.attention import autotune
from kernels.attention.autotune import Found
from kernels.cpu.build import CannotBuild
from kernels.selfcheck import Subject
from kernels.verdicts import Outcome, Verdict


@pytest.mark.parametrize("heads,key_heads", [(4, 4), (4, 2), (4, 1)])
def test_sdpa_is_the_reference_forward_and_backward(heads, key_heads):
    torch.manual_seed(0)
    sizes = [(2, heads, 9, 8), (2, key_heads, 9, 8), (2, key_heads, 9, 8)]
    inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    weight = torch.randn(2, heads, 9, 8, dtype=torch.float64)
    both = []
    for attend in (reference, sdpa):
        out = attend(*inputs, 0.3)
        both.append((out, *torch.autograd.grad((out * weight).sum(), inputs)))
    for expected, found in zip(*both, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_future_is_not_seen():
    q, k, v = (torch.randn(1, 2, 6, 4) for _ in range(3))
    before = reference(q, k, v, 0.5)[:, :, :3]
    v[:, :, 3:] += 100.0
    k[:, :, 3:] -= 5.0
    torch.testing.assert_close(reference(q, k, v, 0.5)[:, :, :3], before)


SHAPE = build_shape(
    ModelConfig(name="tiny", width=16, depth=2, n_heads=2, head_dim=16, mlp_hidden=32), 50, context=16
)
GPU = torch.device("cuda")
CPU = torch.device("cpu")


def built(kind, shape=SHAPE, device=CPU):
    return build_attention(kind, shape, device, torch.bfloat16)


def test_the_door_names_who_answers_and_why():
    auto, asked = built(AttentionKind.auto), built(AttentionKind.reference)
    assert (auto.attend, auto.name, auto.reason) == (sdpa, "sdpa", "no GPU")
    assert (asked.attend, asked.name, asked.reason) == (reference, "reference", "asked for")


@pytest.mark.parametrize(
    ("dtype", "head_dim", "name"),
    [(torch.float32, 16, "cpp"), (torch.float32, 24, "sdpa"), (torch.bfloat16, 16, "sdpa")],
)
def test_auto_on_a_cpu_takes_the_cpp_kernel_where_it_fits(monkeypatch, dtype, head_dim, name):
    monkeypatch.setattr("kernels.cpu.build.library", lambda name: None)
    shape = replace(SHAPE, head_dim=head_dim)
    found = build_attention(AttentionKind.auto, shape, CPU, dtype, CpuAttention.cpp)
    assert found.name == name
    assert build_attention(AttentionKind.sdpa, shape, CPU, dtype, CpuAttention.cpp).name == "sdpa"


def test_without_a_compiler_sdpa_answers_and_says_so(monkeypatch, capsys):
    def fails(name):
        raise CannotBuild("no g++")

    monkeypatch.setattr("kernels.cpu.build.library", fails)
    warn.cache_clear()
    found = build_attention(AttentionKind.auto, SHAPE, CPU, torch.float32, CpuAttention.cpp)
    assert (found.name, found.reason) == ("sdpa", "no g++")
    assert capsys.readouterr().err == "attention=auto: no g++; SDPA answers\n"


def test_triton_is_refused_where_it_cannot_answer():
    with pytest.raises(WrongInput, match="needs a GPU"):
        built(AttentionKind.triton)
    with pytest.raises(WrongInput, match=r"no tile for model\.head_dim=24"):
        built(AttentionKind.triton, replace(SHAPE, head_dim=24), GPU)


@pytest.mark.parametrize(
    ("outcome", "name", "said"),
    [
        (Outcome.passed, "triton", "compared with SDPA on a card"),
        (Outcome.failed, "sdpa", "the kernels failed their comparison with SDPA on a card: dq is off"),
        (Outcome.unavailable, "sdpa", "the kernels could not be compared with SDPA on a card: dq is off"),
    ],
)
def test_auto_on_a_gpu_takes_what_has_proved_itself(monkeypatch, capsys, outcome, name, said):
    asked = []
    monkeypatch.setattr(verdicts, "card_name", lambda device: "a card")
    monkeypatch.setattr(verdicts, "verdict", lambda what: asked.append(what) or Verdict(outcome, "dq is off"))
    warn.cache_clear()
    for _ in range(2):
        found = built(AttentionKind.auto, replace(SHAPE, window=5), GPU)
    assert (found.name, found.reason) == (name, said)
    assert asked[0] == Subject(head_dim=16, dtype="bfloat16", windowed=True, device="cuda")
    warned = [] if name == "triton" else [f"attention=auto: {said}; SDPA answers"]
    assert capsys.readouterr().err.splitlines() == warned


def test_auto_falls_back_without_a_comparison_where_there_is_no_tile(monkeypatch):
    monkeypatch.setattr(verdicts, "verdict", None)
    found = built(AttentionKind.auto, replace(SHAPE, head_dim=24), GPU)
    assert found.attend is sdpa
    assert "no tile for model.head_dim=24" in found.reason


def test_a_card_without_a_tile_falls_back_with_one_warning(monkeypatch, capsys):
    monkeypatch.setattr(verdicts, "verdict", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    warn.cache_clear()
    assert [built(AttentionKind.auto, device=GPU).attend for _ in range(2)] == [sdpa, sdpa]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "attention=auto: no tile of the attention kernels passes on sm_75, only from sm_80; SDPA answers"
    ]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(verdicts, "card_name", lambda device: "a card")
    monkeypatch.setattr(verdicts, "verdict", lambda what: Verdict(Outcome.passed, ""))
    assert built(AttentionKind.auto, device=GPU).name == "triton"


def test_wide_rows_of_float32_have_no_tile(monkeypatch):
    monkeypatch.setattr(verdicts, "card_name", lambda device: "a card")
    monkeypatch.setattr(verdicts, "verdict", lambda what: Verdict(Outcome.passed, ""))
    names = {
        (head_dim, dtype): build_attention(
            AttentionKind.auto, replace(SHAPE, head_dim=head_dim), GPU, dtype
        ).name
        for head_dim, dtype in product((128, 192, 256), (torch.float32, torch.bfloat16))
    }
    assert {of for of, name in names.items() if name == "sdpa"} == {
        (192, torch.float32),
        (256, torch.float32),
    }


def test_a_model_without_attention_compares_nothing(monkeypatch):
    monkeypatch.setattr(verdicts, "verdict", None)
    assert built(AttentionKind.auto, replace(SHAPE, mixer=Mixer.recurrent), GPU).name == "sdpa"


TILES = (64, 64, 4, 2, 1) * 3


@pytest.fixture
def a_gpu(monkeypatch):
    """A card on which shipped tiles are proved; returns what was asked of it, and what it will find."""
    asked, answers = [], {"tiles": Verdict(Outcome.passed, ""), "search": Found(TILES, {})}

    def verdict(subject):
        asked.append(subject)
        return answers["tiles"] if subject.tiles else Verdict(Outcome.passed, "")

    def search(problem):
        asked.append(problem)
        if isinstance(answers["search"], Exception):
            raise answers["search"]
        return answers["search"]

    monkeypatch.setattr(verdicts, "card_name", lambda device: "a card")
    monkeypatch.setattr(verdicts, "verdict", verdict)
    monkeypatch.setattr(autotune, "tuned", search)
    warn.cache_clear()
    return asked, answers


def tuned_attention(fixed=None):
    shape = replace(SHAPE, window=5)
    return build_attention(AttentionKind.auto, shape, GPU, torch.bfloat16, tuning=Tuning(1000, fixed))


def test_tiles_are_searched_for_then_proved_like_the_shipped_ones(a_gpu):
    asked, _ = a_gpu
    found = tuned_attention()
    assert (found.name, found.tiles) == ("triton", TILES)
    assert found.reason == "compared with SDPA on a card; tiles timed there"
    shipped, problem, proved = asked
    assert problem == autotune.Problem(head_dim=16, dtype="bfloat16", tokens=1024, window=5, device="cuda")
    assert (shipped.tiles, proved.tiles) == (None, TILES)
    assert norm_rotate_before(found.attend) is norm_rotate_before(triton) is not None


def test_a_run_that_goes_on_searches_for_nothing(a_gpu):
    asked, _ = a_gpu
    other = (32, 32, 4, 1, 0) * 3
    assert tuned_attention(other).tiles == other
    assert [type(each) for each in asked] == [Subject, Subject]


@pytest.mark.parametrize("failing", ["tiles", "search"])
def test_tiles_that_fail_leave_the_shipped_ones_and_a_warning(a_gpu, capsys, failing):
    _, answers = a_gpu
    wrong = {"tiles": Verdict(Outcome.failed, "dq is off"), "search": RuntimeError("no card")}[failing]
    answers[failing] = wrong
    found = tuned_attention()
    assert (found.name, found.tiles) == ("triton", None)
    assert "shipped tiles" in found.reason
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hardware.autotune: ")
    assert ("dq is off" if failing == "tiles" else "no card") in line
