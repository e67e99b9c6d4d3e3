"""The one-machine cluster: what it claims to do to jobs, and that it ends only what is its own."""

import subprocess
import sys
from pathlib import Path

from tests.slurm.conftest import NODES, SCRIPT, command_of, require_slurm, started, wait_for


def sleeper(cluster, *words: str) -> tuple[str, int]:
    """The id of a job that sleeps on n1, and the pid of its sleep."""
    note = cluster.folder / "sleeper"
    note.unlink(missing_ok=True)
    script = f"echo $$ > {note}.part; mv {note}.part {note}; exec sleep 300"
    job = cluster.ask(
        "sbatch", "--parsable", "-w", "n1", "--output=/dev/null", *words, f"--wrap=srun sh -c '{script}'"
    )
    wait_for("the job to run", note.exists)
    return job, int(note.read_text())


def runs(pid: int) -> bool:
    return b"sleep" in command_of(pid)


def state(cluster, job: str) -> str:
    return cluster.ask("squeue", "-h", "-j", job, "-o", "%T")


def test_listens_on_loopback_alone(cluster):
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = int(cluster.ask("sh", "-c", f"sed -n s/SlurmctldPort=//p {cluster.folder}/slurm.conf"))
    found = {
        a[1].split(":")[0]
        for a in listening
        if a[3] == "0A" and int(a[1].split(":")[1], 16) in range(port, port + 4)
    }
    assert found == {"0100007F"}


def test_a_cut_node_runs_on_and_a_crashed_one_does_not(cluster):
    job, pid = sleeper(cluster)
    cluster.control("cut", "n1")
    assert runs(pid)
    cluster.control("up", "n1")
    wait_for("its first word", lambda: "n1" not in cluster.ask("sinfo", "-h", "--dead"))
    assert (runs(pid), state(cluster, job)) == (True, "RUNNING")
    cluster.control("crash", "n1")
    wait_for("its death", lambda: not runs(pid))
    cluster.ask("scontrol", "update", "nodename=n1", "state=down", "reason=test")
    wait_for("the requeue", lambda: state(cluster, job) == "PENDING")


def test_a_restarted_controller_knows_its_jobs(cluster):
    job, pid = sleeper(cluster)
    cluster.control("restart")
    assert (runs(pid), state(cluster, job)) == (True, "RUNNING")


def test_a_folder_whose_sockets_would_be_too_long_is_refused(tmp_path):
    require_slurm()
    command = [sys.executable, str(SCRIPT), "start", str(tmp_path / ("x" * 100))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and "characters too long" in done.stderr
    assert not any(tmp_path.iterdir())


def test_stop_ends_its_own_daemons_and_jobs_alone(tmp_path_factory):
    require_slurm()
    with started(tmp_path_factory.mktemp("own")) as cluster:
        _, pid = sleeper(cluster)
        other = subprocess.Popen(["sleep", "300"], env={"SLURM_CONF": "elsewhere", "SLURMD_NODENAME": "n1"})
        notes = {path.name: path.read_text() for path in (cluster.folder / "pids").iterdir()}
        assert set(notes) == {"munged", "slurmctld", *NODES}
        cluster.control("stop")
        for name in notes:  # pids that another process has by now
            (cluster.folder / "pids" / name).write_text(f"{other.pid} 1")
        cluster.control("stop")
        assert other.poll() is None
        other.kill()
        other.wait()
        pids = [int(note.split()[0]) for note in notes.values()]
        wait_for("all ends", lambda: not runs(pid) and not any(b"slurm" in command_of(one) for one in pids))
