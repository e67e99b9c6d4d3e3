from harness.shape import ModelConfig, build_shape
from harness.training.memory import activation_bytes_per_sequence, micro_batch_sequences

SHAPE = build_shape(
    ModelConfig(name="t", width=64, depth=2, n_heads=4, head_dim=16, mlp_hidden=176), 1024, 256
)


def test_the_micro_batch_divides_the_batch_and_fits():
    one = activation_bytes_per_sequence(SHAPE)
    for batch in (1, 7, 12, 64):
        micro = micro_batch_sequences(SHAPE, batch, activation_gib=5 * one / 2**30)
        assert batch % micro == 0
        assert micro <= 5


def test_everything_fits_in_plenty_and_one_sequence_always_runs():
    assert micro_batch_sequences(SHAPE, 48, activation_gib=100.0) == 48
    assert micro_batch_sequences(SHAPE, 48, activation_gib=1e-9) == 1
