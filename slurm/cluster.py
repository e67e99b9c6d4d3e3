#!/usr/bin/env python3
"""A real Slurm on this machine, for tests: munge, a controller and several nodes, on loopback alone.

    slurm/cluster.py start FOLDER [--nodes 3] [--cpus 4] [--gpus 2] [--grace 20] [--user-signal] ...
    slurm/cluster.py crash|cut|up FOLDER n1     a power loss; the network lost, jobs running on; back again
    slurm/cluster.py restart FOLDER             end the controller and start it again
    slurm/cluster.py stop FOLDER

    export SLURM_CONF=FOLDER/slurm.conf         then sinfo, sbatch, squeue ... speak to it

Needs root and Debian's packages (Slurm 22.05): munge slurmctld slurmd slurm-client. No systemd, no cgroups,
no accounting. Partitions: `low` gives way to `high` after --grace seconds, `abrupt` at once; a job that
gives way is requeued. Every file lies in FOLDER. What is ended is known by its pid and when that started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
PACKAGES = "munge slurmctld slurmd slurm-client"
NULL_DEVICE = (1, 3)

CONF = """\
ClusterName=one-machine
FirstJobId={first_job}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is how long a requeued job waits; it must exceed KillWait
AuthInfo=socket={folder}/munge/socket,cred_expire={requeue_wait}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
PropagateResourceLimits=NONE
# nodes may claim more processors and memory than there are
SlurmdParameters=config_overrides
{controller}
ReturnToService=1
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=10000,batch_sched_delay=0,default_queue_depth=1000
MaxArraySize={max_array}
MaxJobCount={max_jobs}
MinJobAge=600
JobRequeue=1
KillWait={kill_wait}
SlurmdTimeout=15
SlurmctldTimeout=30
BatchStartTimeout=10
UnkillableStepTimeout=30
CompleteWait=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=60 DefaultTime=5 PriorityTier=1 GraceTime={grace} State=UP
PartitionName=abrupt Nodes=ALL MaxTime=60 DefaultTime=5 PriorityTier=1 GraceTime=0 State=UP
PartitionName=high Nodes=ALL MaxTime=60 DefaultTime=5 PriorityTier=10 PreemptMode=OFF State=UP
"""


SOCKET_PATH, STEP_NAME = 107, "_1234567.4294967291"
"""The longest path of a Unix socket, unix(7), and what follows the node's name in that of a job's step."""


def start(folder: Path, wanted: argparse.Namespace) -> None:
    """Bring up whatever is not up; called again with other settings, the controller restarts with them."""
    if missing := [name for name in DAEMONS if shutil.which(name, path=PATH) is None]:
        sys.exit(f"{', '.join(missing)} not found: apt-get install -y --no-install-recommends {PACKAGES}")
    longest = folder / f"spool-n{wanted.nodes}" / f"n{wanted.nodes}{STEP_NAME}"
    if (excess := len(str(longest)) - SOCKET_PATH) > 0:
        sys.exit(f"{folder} is {excess} characters too long: no step could open its socket there")
    for name in ("munge", "state", "log", "pids", "dev"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    start_munge(folder)
    gpus = gpu_devices(folder, wanted.gpus)
    changed = write_conf(folder, wanted, gpus)
    if changed:
        end(folder, "slurmctld")
    start_controller(folder)
    for number in range(1, wanted.nodes + 1):
        start_node(folder, f"n{number}")
    wait_until(30, "the nodes to come up", lambda: ready_nodes(folder) == wanted.nodes)


def start_munge(folder: Path) -> None:
    munge = folder / "munge"
    munge.chmod(0o755)
    key = munge / "key"
    if not key.exists():
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
    places = {
        "key-file": key,
        "socket": munge / "socket",
        "pid-file": munge / "pid",
        "seed-file": munge / "seed",
    }
    options = [f"--{name}={path}" for name, path in {**places, "log-file": folder / "log/munged.log"}.items()]
    launch(folder, "munged", ["munged", "--foreground", "--force", "--num-threads=2", *options])
    wait_until(10, "munge", lambda: run(folder, "munge", "-n", "-S", str(munge / "socket")).returncode == 0)


def start_controller(folder: Path) -> None:
    launch(folder, "slurmctld", ["slurmctld", "-D", "-f", str(folder / "slurm.conf")])
    wait_until(20, "slurmctld", lambda: "is UP" in run(folder, "scontrol", "ping").stdout)


def start_node(folder: Path, node: str) -> None:
    (folder / f"spool-{node}").mkdir(exist_ok=True)
    launch(folder, node, ["slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf")])


def gpu_devices(folder: Path, count: int) -> str:
    """Devices that stand for GPUs: Slurm wants character devices and only looks whether they are there."""
    for number in range(count):
        device = folder / "dev" / f"nvidia{number}"
        if not device.exists():
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(*NULL_DEVICE))
    return f"Name=gpu File={folder}/dev/nvidia[0-{count - 1}]\n" if count else ""


def write_conf(folder: Path, wanted: argparse.Namespace, gpus: str) -> bool:
    """Whether slurm.conf differs from the one that was there."""
    old = (folder / "slurm.conf").read_text() if (folder / "slurm.conf").exists() else ""
    port, first_job = base_port(old), first_job_id(old)
    gres = f" Gres=gpu:{wanted.gpus}" if gpus else ""
    nodes = "\n".join(
        f"NodeName=n{i} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port + i} CPUs={wanted.cpus} "
        f"RealMemory=4000{gres} State=UNKNOWN"
        for i in range(1, wanted.nodes + 1)
    )
    text = CONF.format(
        folder=folder,
        port=port,
        first_job=first_job,
        nodes=nodes,
        controller="SlurmctldParameters=preempt_send_user_signal" if wanted.user_signal else "",
        grace=wanted.grace,
        kill_wait=wanted.kill_wait,
        requeue_wait=wanted.requeue_wait,
        max_array=wanted.max_array,
        max_jobs=wanted.max_jobs,
    )
    (folder / "gres.conf").write_text(gpus)
    (folder / "plugstack.conf").write_text("")
    (folder / "slurm.conf").write_text(text)
    return text != old


def base_port(old: str) -> int:
    """The port that was taken before, else the first of a row of free ones."""
    if old:
        return int(setting(old, "SlurmctldPort"))
    while True:
        first = random.randrange(20_000, 30_000, 50)
        if all(is_free(first + offset) for offset in range(20)):
            return first


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def first_job_id(old: str) -> int:
    """Never the ids of an earlier cluster."""
    return int(setting(old, "FirstJobId")) if old else int(time.time()) % 3_000_000 * 20 + 1


def setting(conf: str, name: str) -> str:
    return next(line.split("=", 1)[1] for line in conf.splitlines() if line.startswith(f"{name}="))


def ready_nodes(folder: Path) -> int:
    states = run(folder, "sinfo", "-h", "-N", "-p", "low", "-o", "%T").stdout.split()
    return sum(state in ("idle", "mixed", "allocated", "completing") for state in states)


def cut(folder: Path, node: str) -> None:
    """End the node's daemon; what it runs goes on, as on a machine that the network has lost."""
    end(folder, node, signal.SIGKILL)


def crash(folder: Path, node: str) -> None:
    """End the daemon and all that it runs."""
    cut(folder, node)
    for pid in steps(folder, node):
        kill(pid)


def restart(folder: Path) -> None:
    end(folder, "slurmctld")
    start_controller(folder)


def stop(folder: Path) -> None:
    """End the jobs, the daemons, and what they may have left."""
    if alive(folder, "slurmctld"):
        run(folder, "scancel", "--user=root")
        wait_for(5, lambda: not run(folder, "squeue", "-h", "-t", "R,CG").stdout.strip())
    nodes = sorted(path.name for path in (folder / "pids").glob("n*"))
    for name in nodes:
        end(folder, name)
    for pid in steps(folder):
        kill(pid)
    for name in ("slurmctld", "munged"):
        end(folder, name)


def steps(folder: Path, node: str | None = None) -> list[int]:
    """Pids of this cluster's tasks and of the slurmstepds above them, first those above: known by the
    SLURM_CONF in their environment, and a task also by its node."""
    tasks, above = [], []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if f"SLURM_CONF={folder}/slurm.conf".encode() not in environment:
            continue
        if b"slurmstepd" in command.split(b"\0")[0]:
            above += [int(entry.name)] if node is None else []
        elif on_node(environment, node):
            tasks.append(int(entry.name))
            above += [parent] if is_stepd(parent) else []
    return [*dict.fromkeys(above), *tasks]


def on_node(environment: list[bytes], node: str | None) -> bool:
    if node is None:
        return any(word.startswith(b"SLURMD_NODENAME=") for word in environment)
    return f"SLURMD_NODENAME={node}".encode() in environment


def is_stepd(pid: int) -> bool:
    try:
        return b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False


def launch(folder: Path, name: str, command: list[str]) -> None:
    """Start a daemon unless it lives, and note its pid and start."""
    if alive(folder, name):
        return
    with (folder / "log" / f"{name}.out").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(folder),
            start_new_session=True,
        )
    (folder / "pids" / name).write_text(f"{process.pid} {started(process.pid)}")


def end(folder: Path, name: str, number: signal.Signals = signal.SIGTERM) -> None:
    """Ask a daemon of ours to end, insist after ten seconds."""
    pid = alive(folder, name)
    if pid is not None:
        os.kill(pid, number)
        if not wait_for(10, lambda: alive(folder, name) is None):
            kill(pid)
    (folder / "pids" / name).unlink(missing_ok=True)


def alive(folder: Path, name: str) -> int | None:
    """The pid of a daemon that we started and that still runs."""
    try:
        pid, start_time = (folder / "pids" / name).read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if started(int(pid)) == start_time else None


def started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def environment(folder: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    return {
        **inherited,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{PATH}:{os.environ.get('PATH', '')}",
    }


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment(folder))
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "timed out")


def wait_for(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def wait_until(seconds: float, what: str, true: Callable[[], bool]) -> None:
    if not wait_for(seconds, true):
        sys.exit(f"waited {seconds:.0f} s in vain for {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("start", "stop", "restart", "crash", "cut", "up"):
        words = verbs.add_parser(verb)
        words.add_argument("folder", type=lambda text: Path(text).resolve())
        if verb in ("crash", "cut", "up"):
            words.add_argument("node")
        if verb == "start":
            words.add_argument("--nodes", type=int, default=3)
            words.add_argument("--cpus", type=int, default=4, help="of each node")
            words.add_argument("--gpus", type=int, default=0, help="of each node; they are not real")
            words.add_argument("--grace", type=int, default=20, help="seconds of a preempted job in `low`")
            words.add_argument(
                "--user-signal", action="store_true", help="preemption sends the job's --signal"
            )
            words.add_argument("--kill-wait", type=int, default=4, help="seconds between TERM and KILL")
            words.add_argument("--requeue-wait", type=int, default=8, help="seconds; more than --kill-wait")
            words.add_argument("--max-array", type=int, default=1001)
            words.add_argument("--max-jobs", type=int, default=10_000)
    words = parser.parse_args()
    match words.verb:
        case "start":
            start(words.folder, words)
        case "stop":
            stop(words.folder)
        case "restart":
            restart(words.folder)
        case "crash":
            crash(words.folder, words.node)
        case "cut":
            cut(words.folder, words.node)
        case "up":
            start_node(words.folder, words.node)


if __name__ == "__main__":
    main()
