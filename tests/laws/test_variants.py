"""Runs of several kinds of model are no rows of one law."""

from __future__ import annotations

import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.laws.tables import observations_from_table
from harness.laws.variants import VARIANTS


def table(tmp_path, header, *rows):
    path = tmp_path / "t.csv"
    cells = [
        f"{n},{d},{2 + 1 / n},{row}" for n, d, row in zip((1e5, 2e5, 4e5), (1e6, 2e6, 3e6), rows, strict=True)
    ]
    path.write_text("\n".join([f"params_total,tokens,loss,{header}", *cells]))
    return path


@pytest.mark.parametrize(
    "header, rows, said",
    [
        ("optimizer", ("adamw", "muon", "adamw"), "different optimizer .*adamw on 2, muon on 1"),
        ("window", ("", "8", ""), r'none on 2, 8 on 1.*window=8"\] or where=\["window!=8"'),
        ("n_heads,n_kv_heads", ("4,4", "8,4", "8,8"), "query heads per key head .*1 on 2, 2 on 1"),
        ("parametrization", ("mup", "mup", "standard"), r"together with pooled=\[parametrization\]"),
    ],
)  # fmt: skip
def test_a_mixture_is_refused_with_how_to_choose(tmp_path, header, rows, said):
    with pytest.raises(CannotAnswer, match=said):
        observations_from_table(table(tmp_path, header, *rows))


@pytest.mark.parametrize(
    "header, rows",
    [
        ("lr,batch_tokens,seed", ("1e-3,512,0", "2e-3,1024,1", "4e-3,512,2")),
        ("n_heads,n_kv_heads", ("2,2", "4,4", "8,")),
        ("optimizer", ("adamw", "", "adamw")),
        ("width,depth", ("32,2", "64,2", "64,4")),
    ],
)
def test_what_a_sweep_moves_is_no_variant(tmp_path, header, rows):
    assert len(observations_from_table(table(tmp_path, header, *rows))) == 3


def test_a_mixture_can_be_chosen_from_or_pooled(tmp_path):
    path = table(tmp_path, "schedule,window", "wsd,", "cosine,8", "wsd,")
    assert len(observations_from_table(path, where=["window!=8"])) == 2
    assert len(observations_from_table(path, pooled=["schedule", "window"])) == 3
    with pytest.raises(CannotAnswer, match="different window"):
        observations_from_table(path, pooled=["schedule"])


def test_only_variants_can_be_pooled(tmp_path):
    with pytest.raises(WrongInput, match=f"'lr' is none of {VARIANTS[0]}"):
        observations_from_table(table(tmp_path, "lr", 1, 2, 3), pooled=["lr"])
