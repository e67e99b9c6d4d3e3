import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.config import config_dir
from harness.errors import WrongInput
from harness.model.attention import reference, sdpa
from harness.model.init import build_model
from harness.model.settings import InitConfig, ParametrizationConfig
from harness.shape import ModelConfig, build_shape


def model(**changes: object) -> ModelConfig:
    plain = {"name": "t", "width": 32, "depth": 3, "n_heads": 4, "head_dim": 16, "mlp_hidden": 48}
    return ModelConfig(**{**plain, **changes})


SHAPES = [
    build_shape(model(), 100, 16),
    build_shape(model(n_kv_heads=2), 101, 16),
    build_shape(model(n_kv_heads=1, tied_embeddings=False, head_dim=8), 64, 8),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_by_component_match_the_module(shape):
    module = build_model(shape, sdpa, InitConfig(), ParametrizationConfig(), seed=0)
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    by_component = {
        "embedding": sizes["embedding.weight"],
        "attention": sum(n for k, n in sizes.items() if ".qkv." in k or ".out." in k),
        "mlp": sum(n for k, n in sizes.items() if ".mlp." in k),
        "norm": sum(n for k, n in sizes.items() if "norm" in k),
        "head": sizes.get("head.weight", 0),
    }
    assert by_component == {name: getattr(shape.params, name) for name in by_component}
    assert shape.params.total == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("shape", SHAPES)
def test_flops_match_torchs_counter(shape):
    """The counter sees every product of the reference attention, but over the full T x T square; the
    causal half is (T + 1) / 2T of it."""
    module = build_model(shape, reference, InitConfig(), ParametrizationConfig(), seed=0)
    tokens = torch.randint(shape.vocab_size, (2, shape.context))
    with FlopCounterMode(display=False) as counter:
        module.loss(tokens, tokens).backward()
    flops = shape.flops_per_token
    full_square = flops.scores * 2 * shape.context / (shape.context + 1)
    expected = 3 * (flops.forward - flops.scores + full_square)
    assert counter.get_total_flops() == pytest.approx(expected * tokens.numel(), rel=1e-12)


@pytest.mark.parametrize("file", sorted((config_dir() / "model").glob("*.yaml")), ids=lambda f: f.stem)
def test_a_rungs_name_states_its_size(file):
    from omegaconf import OmegaConf

    config = ModelConfig(**OmegaConf.to_object(OmegaConf.load(file)))
    stated = float(file.stem[:-1]) * {"k": 1e3, "m": 1e6, "b": 1e9}[file.stem[-1]]
    assert config.name == file.stem
    assert build_shape(config, 1000, 64).params.non_embedding == pytest.approx(stated, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"depth": 0}, "depth"), ({"head_dim": 15}, "even"), ({"n_kv_heads": 3}, "n_kv_heads")],
)
def test_impossible_shapes_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        model(**changes)


def test_a_vocabulary_of_one_is_refused():
    with pytest.raises(WrongInput, match="vocabulary"):
        build_shape(model(), 1, 16)
