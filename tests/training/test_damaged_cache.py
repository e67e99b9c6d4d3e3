"""A cache of compiled code that a killed process left damaged costs one compilation, not the run."""

import math
from pathlib import Path

import pytest
import torch

from harness.errors import CannotAnswer
from harness.training.compiling import missing_compiler
from harness.training.damaged_cache import complaint, discard, recompiled, torn_probes_complain

TORN = "OSError: /cache/c2/main.so: file too short"


class Tries:
    """Fails with each of `errors`, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.count = list(errors), 0

    def __call__(self) -> int:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.count


def test_it_is_tried_once_more_and_then_given_up(capsys):
    assert recompiled(Tries(RuntimeError(TORN)), alone=True) == 2
    assert "compiling anew" in capsys.readouterr().err
    with pytest.raises(CannotAnswer, match=r"empty folder too .*main\.so: file too short.*compile=never"):
        recompiled(Tries(RuntimeError(TORN), RuntimeError(TORN)), alone=True)


def test_one_of_several_processes_says_what_to_remove():
    tries = Tries(RuntimeError(TORN))
    with pytest.raises(CannotAnswer, match="remove that folder and start again"):
        recompiled(tries, alone=False)
    assert tries.count == 1


@pytest.mark.parametrize("other", [RuntimeError("shape mismatch"), CannotAnswer(TORN)])
def test_other_failures_are_left_as_they_are(other):
    tries = Tries(other)
    with pytest.raises(type(other)) as failure:
        recompiled(tries, alone=True)
    assert failure.value is other and tries.count == 1


def waves(x: torch.Tensor) -> torch.Tensor:
    return (2 * x + 1).sin().sum()


compiles = pytest.mark.skipif(
    bool(missing_compiler(torch.device("cpu"))), reason="nothing can be compiled here: no g++ or no headers"
)


@compiles
def test_a_library_cut_short_is_removed_and_compiled_anew(tmp_path, monkeypatch, capsys):
    from torch._inductor import config
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    load, cut = CppPythonBindingsCodeCache._load_library_inner, []

    def load_but_cut_the_first(path: str, key: str):
        if not cut:
            cut.append(Path(path))
            cut[0].write_bytes(cut[0].read_bytes()[:100])
        return load(path, key)

    monkeypatch.setattr(CppPythonBindingsCodeCache, "_load_library_inner", load_but_cut_the_first)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with config.patch(cpp_cache_precompile_headers=False):  # takes longer than what it spares
        found = recompiled(lambda: torch.compile(waves)(torch.ones(64)), alone=True)
    assert found.item() == pytest.approx(64 * math.sin(3), rel=1e-5)
    assert "compiling anew" in capsys.readouterr().err
    assert not cut[0].exists()


@compiles
@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_probe_cut_short_is_no_missing_instruction_set(tmp_path, monkeypatch, kept):
    from torch._inductor.cpu_vec_isa import VecISA, VecNEON

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    isa, code = VecNEON(), 'extern "C" int one() { return 1; }'  # it adds no flags of its own
    assert isa.check_build(code)
    probe = next(tmp_path.rglob("*.so"))
    probe.write_bytes(probe.read_bytes()[:kept])
    assert not isa.check_build(code)
    with torn_probes_complain(), pytest.raises(OSError) as torn:
        isa.check_build(code)
    assert complaint(torn.value) == f"OSError: {probe}: file too short"
    assert discard(torn.value) == tmp_path
    with torn_probes_complain():
        assert isa.check_build(code)
        assert not isa.check_build("not C++")
    assert VecISA._probe_load.__name__ == "_probe_load"
