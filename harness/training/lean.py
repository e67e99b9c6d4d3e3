"""Lightning without torchmetrics, whose import takes as long as torch's own.

It draws in scipy.signal and matplotlib, and Lightning has it for metrics that are logged through Lightning,
which nothing here does: while Lightning is imported two empty classes stand in. Afterwards torchmetrics
is itself again to whoever imports it.
"""

import sys
from importlib.metadata import version
from types import ModuleType

TORCHMETRICS = "torchmetrics"


def stand_in() -> ModuleType:
    module = ModuleType(TORCHMETRICS)
    vars(module).update(
        __version__=version(TORCHMETRICS), Metric=type("Metric", (), {}), MetricCollection=type("All", (), {})
    )
    return module


def forget(name: str) -> None:
    """As if the package had never been imported."""
    for loaded in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[loaded]


if not {TORCHMETRICS, "lightning"} & sys.modules.keys():
    sys.modules[TORCHMETRICS] = stand_in()
    try:
        import lightning
    except (ImportError, AttributeError):  # a version that wants more of it gets all of it
        forget("lightning")
    finally:
        forget(TORCHMETRICS)

import lightning  # noqa: E402

__all__ = ["lightning"]
