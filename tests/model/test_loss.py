import pytest
import torch
from torch import nn

from harness.errors import WrongInput
from harness.model.loss import build_loss, chunked, full, triton
from harness.model.proof import warn
from harness.model.settings import LossKind
from harness.shape import ModelConfig, build_shape
from kernels import verdicts
from kernels.linear_cross_entropy.selfcheck import Subject
from kernels.verdicts import Outcome, Verdict

SHAPE = build_shape(
    ModelConfig(name="tiny", width=16, depth=2, n_heads=2, head_dim=16, mlp_hidden=32), 50, context=16
)
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def built(kind, device=CPU):
    return build_loss(kind, SHAPE, device, torch.bfloat16)


def test_the_door_names_who_answers_and_why():
    asked = [
        (built(kind).loss, built(kind).name, built(kind).reason)
        for kind in LossKind
        if "triton" not in kind.value
    ]
    assert asked == [
        (full, "full", "asked for"),
        (chunked, "chunked", "asked for"),
        (chunked, "chunked", "no GPU"),
    ]


def test_triton_is_refused_without_a_gpu():
    with pytest.raises(WrongInput, match="loss=triton needs triton and a GPU"):
        built(LossKind.triton)


def test_full_and_chunked_are_one_loss():
    hidden, head = torch.randn(2, 5, 16), nn.Linear(16, 50, bias=False)
    targets = torch.randint(50, (2, 5))
    torch.testing.assert_close(full(hidden, head, targets), chunked(hidden, head, targets))


@pytest.mark.parametrize(
    ("outcome", "loss", "said"),
    [
        (Outcome.passed, triton, "compared with PyTorch on a card"),
        (Outcome.failed, chunked, "the kernels failed their comparison with PyTorch on a card: it is off"),
        (Outcome.unavailable, chunked, "the kernels could not be compared with PyTorch on a card: it is off"),
    ],
)
def test_auto_on_a_gpu_takes_what_has_proved_itself(monkeypatch, capsys, outcome, loss, said):
    asked = []
    monkeypatch.setattr(verdicts, "card_name", lambda device: "a card")
    monkeypatch.setattr(verdicts, "verdict", lambda what: asked.append(what) or Verdict(outcome, "it is off"))
    warn.cache_clear()
    for _ in range(2):
        found = built(LossKind.auto, GPU)
    assert (found.loss, found.reason) == (loss, said)
    assert asked[0] == Subject(vocab_size=50, width=16, dtype="bfloat16", device="cuda")
    warned = [] if loss is triton else [f"loss=auto: {said}; PyTorch's operations answer"]
    assert capsys.readouterr().err.splitlines() == warned
