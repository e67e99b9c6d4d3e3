"""Every kind of model there is, as changes to a plain one of four layers and four heads."""

from harness.shape import Mixer

VARIANTS = {
    "grouped": {"n_kv_heads": 2},
    "window": {"window": 5},
    "window_and_full": {"window": 5, "full_every": 2},
    "recurrent": {"mixer": Mixer.recurrent, "state_size": 6},
    "hybrid": {"mixer": Mixer.recurrent, "attention_every": 2, "window": 5},
    "looped": {"recurrence": 3},
    "looped_core": {"recurrence": 2, "prelude": 1, "coda": 1},
    "looped_hybrid": {"mixer": Mixer.recurrent, "attention_every": 4, "recurrence": 2, "n_kv_heads": 1},
}
