import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.config import config_dir
from harness.errors import WrongInput
from harness.model.attention import reference, sdpa, visible
from harness.model.init import build_model
from harness.model.scan import stepwise
from harness.model.settings import InitConfig, ParametrizationConfig
from harness.shape import Mixer, ModelConfig, build_shape, mean_visible
from tests.variants import VARIANTS


def model(**changes: object) -> ModelConfig:
    plain = {"name": "t", "width": 32, "depth": 3, "n_heads": 4, "head_dim": 16, "mlp_hidden": 48}
    return ModelConfig(**{**plain, **changes})


SHAPES = [
    build_shape(model(), 100, 16),
    build_shape(model(n_kv_heads=2), 101, 16),
    build_shape(model(n_kv_heads=1, tied_embeddings=False, head_dim=8), 64, 8),
    *(build_shape(model(depth=4, **changes), 77, 12) for changes in VARIANTS.values()),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_by_component_match_the_module(shape):
    module = build_model(shape, sdpa, InitConfig(), ParametrizationConfig(), seed=0)
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    by_component = {
        "embedding": sizes["embedding.weight"],
        "attention": sum(n for k, n in sizes.items() if ".attention." in k and "norm" not in k),
        "recurrent": sum(n for k, n in sizes.items() if ".recurrent." in k and "norm" not in k),
        "mlp": sum(n for k, n in sizes.items() if ".mlp." in k),
        "norm": sum(n for k, n in sizes.items() if "norm" in k),
        "head": sizes.get("head.weight", 0),
    }
    assert by_component == {name: getattr(shape.params, name) for name in by_component}
    assert shape.params.total == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("shape", SHAPES)
def test_flops_match_torchs_counter(shape):
    """The counter sees every product of the reference attention, but over the full T x T square, whatever
    the window; and every product of the recurrence, step by step. It forgets that a convolution's backward
    pass is by channel as its forward pass is."""
    module = build_model(shape, reference, InitConfig(), ParametrizationConfig(), seed=0)
    for layer in module.modules():
        if hasattr(layer, "scan"):
            layer.scan = stepwise
    tokens = torch.randint(shape.vocab_size, (2, shape.context))
    with FlopCounterMode(display=False) as counter:
        module.loss(tokens, tokens).backward()
    counts = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    if "aten.convolution" in counts:
        counts["aten.convolution_backward"] = 2 * counts["aten.convolution"]
    flops = shape.flops_per_token
    assert isinstance(flops.training, float)
    passes = sum(layer.passes for layer in shape.layers if layer.mixer is Mixer.attention)
    full_square = 2 * 2 * shape.n_heads * shape.head_dim * shape.context * passes
    expected = 3 * (flops.forward - flops.scores + full_square)
    assert sum(counts.values()) == pytest.approx(expected * tokens.numel(), rel=1e-12)


@pytest.mark.parametrize("file", sorted((config_dir() / "model").glob("*.yaml")), ids=lambda f: f.stem)
def test_a_rungs_name_states_its_size(file):
    from omegaconf import OmegaConf

    config = ModelConfig(**OmegaConf.to_object(OmegaConf.load(file)))
    stated = float(file.stem[:-1]) * {"k": 1e3, "m": 1e6, "b": 1e9}[file.stem[-1]]
    assert config.name == file.stem
    assert build_shape(config, 1000, 64).params.non_embedding == pytest.approx(stated, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"depth": 0}, "depth"),
        ({"head_dim": 15}, "even"),
        ({"n_kv_heads": 3}, r"n_kv_heads=3 must divide model\.n_heads=4"),
        ({"window": 0}, r"window must be at least 1, not 0"),
        ({"recurrence": 0}, r"recurrence must be at least 1, not 0"),
        ({"state_size": 0}, r"state_size must be at least 1"),
        ({"full_every": 2}, r"full_every=2 needs model\.window"),
        ({"window": 4, "full_every": 1}, r"full_every=1 must lie between 2 and model\.depth=3"),
        ({"window": 4, "full_every": 4}, r"full_every=4 must lie between"),
        ({"attention_every": 2}, r"attention_every=2 needs model\.mixer=recurrent"),
        ({"mixer": Mixer.recurrent, "window": 4}, r"no layer attends; add model\.attention_every"),
        (
            {"mixer": Mixer.recurrent, "attention_every": 2, "window": 4, "full_every": 2},
            "leave one of them out",
        ),
        ({"recurrence": 2, "prelude": 2, "coda": 1}, r"must leave at least one of the model\.depth=3"),
        ({"coda": -1}, "coda=-1"),
    ],
)
def test_impossible_shapes_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        model(**changes)


def test_a_vocabulary_of_one_is_refused():
    with pytest.raises(WrongInput, match="vocabulary"):
        build_shape(model(), 1, 16)


@pytest.mark.parametrize("window", [None, 1, 3, 8, 20])
def test_the_keys_that_are_counted_are_those_seen(window):
    assert mean_visible(8, window) == visible(8, window, torch.device("cpu")).sum() / 8


def test_layers_are_laid_out_as_asked():
    every_second = build_shape(model(depth=5, window=4, full_every=2), 100, 16).layers
    assert [layer.window for layer in every_second] == [4, None, 4, None, 4]
    hybrid = build_shape(model(depth=4, mixer=Mixer.recurrent, attention_every=3, window=4), 100, 16).layers
    assert [(layer.mixer.value, layer.window) for layer in hybrid] == [
        ("recurrent", None),
        ("recurrent", None),
        ("attention", 4),
        ("recurrent", None),
    ]
    looped = build_shape(model(depth=4, recurrence=3, prelude=1, coda=2), 100, 16)
    assert [layer.passes for layer in looped.layers] == [1, 3, 1, 1]
    assert looped.unrolled_depth == 6


def test_a_recurrence_costs_flops_and_no_parameters():
    once, thrice = (build_shape(model(recurrence=r), 100, 16) for r in (1, 3))
    deep = build_shape(model(depth=9), 100, 16)
    assert thrice.params == once.params
    assert thrice.flops_per_token == deep.flops_per_token


@pytest.mark.parametrize("tied", [True, False])
def test_a_larger_vocabulary_is_paid_for_in_embedding_and_head_alone(tied):
    small, large = (build_shape(model(tied_embeddings=tied), size, 16) for size in (256, 4096))
    assert large.params.non_embedding == small.params.non_embedding
    assert large.params.total - small.params.total == (1 if tied else 2) * 3840 * 32
    assert large.params.body_and_head - small.params.body_and_head == 3840 * 32
    assert large.flops_per_token.forward - small.flops_per_token.forward == 2 * 3840 * 32
