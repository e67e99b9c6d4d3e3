"""`harness bench launch` on a real cluster, with few cells."""

import json

from harness.cli import main
from harness.commands import bench, bench_launch
from harness.sweep.slurm.settings import SlurmConfig

FEW = 4


def test_each_cost_is_measured_beside_its_reference(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("CELLS", "KNOWN", "TASKS"):
        monkeypatch.setattr(bench_launch, name, FEW)
    config = SlurmConfig(partition="low", time="10", warning_seconds=60)
    costs = [
        bench_launch.status_cost(tmp_path, 1),
        bench_launch.submit_cost(tmp_path, config, 1),
        bench_launch.array_cost(tmp_path, config, 1),
    ]
    assert all(cost.ratio > 0 for cost in costs)
    assert min(costs[2].seconds, costs[2].reference_seconds) > 1  # a task takes a second
    assert cluster.ask("squeue", "-h") == ""


def test_without_slurm_what_needs_it_is_refused_and_the_rest_is_shown(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bench, "rungs", lambda settings: [None])
    monkeypatch.setattr(bench_launch, "status_cost", lambda *_: bench_launch.Cost("status", "json", 3.0, 2.0))
    monkeypatch.setattr(bench_launch, "start_cost", lambda *_: bench_launch.Cost("start", "torch", 3.0, 1.0))
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "launch", "format=json"]) == 1
    said = capsys.readouterr()
    assert [row["ratio"] for row in json.loads(said.out)] == [1.5, 3.0]
    assert (
        said.err == "harness bench: squeue is not here: launching and arrays are measured on a login node\n"
    )
