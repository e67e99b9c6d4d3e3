import json
import subprocess

from harness.training.provenance import environment, version_of
from harness.training.run import train

SECRETS = {
    "WANDB_API_KEY": "k",
    "AWS_SECRET_ACCESS_KEY": "s",
    "SLURM_JWT": "j",
    "HF_TOKEN": "t",
    "HOME": "/h",
}
TOLD = {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "4", "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}


def test_the_environment_tells_no_secrets():
    assert environment({**SECRETS, **TOLD}) == TOLD


def test_a_run_says_where_it_came_from(planned_run, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run = planned_run("horizon.tokens=1_024")
    record = train(run)
    told = json.loads((run.path / "provenance.json").read_text())
    assert told["code_version"] == record.code_version
    assert told["corpus_hash"] == record.corpus_hash
    assert told["tokenizer_hash"] == record.tokenizer_hash
    assert told["environment"]["SLURM_JOB_ID"] == "7"
    assert told["memory_bytes"] > record.peak_memory_bytes > 1e8
    assert {"python", "packages", "platform", "host", "processor", "device", "threads"} <= told.keys()


def test_uncommitted_edits_have_a_hash_of_their_content(tmp_path):
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    old, new, other = (tmp_path / "harness" / name for name in ("old.py", "new.py", "ünï.yaml"))
    old.parent.mkdir()
    old.write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    versions = [version_of(tmp_path)]
    for file, data in (
        (old, b"2\n"),
        (new, b"1\n"),
        (new, b"2\n"),
        (other, b"1\n"),
        (other, b"2\n"),
        (old, b"\xe9\n"),
    ):
        file.write_bytes(data)
        versions.append(version_of(tmp_path))
    assert "dirty" not in versions[0]
    assert len(set(versions)) == 7
    assert all(version.startswith(f"{versions[0]}+dirty.") for version in versions[1:])
