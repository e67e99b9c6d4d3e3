#!/usr/bin/env python3
"""A real Slurm on this machine, for tests: munge, a controller and several nodes, on loopback alone.

    slurm/cluster.py start FOLDER [--nodes 3] [--cpus 4] [--gpus 2] [--grace 20] [--accounting] ...
    slurm/cluster.py crash|cut|up FOLDER n1     a power loss; the network lost, jobs running on; back again
    slurm/cluster.py restart FOLDER             end the controller and start it again
    slurm/cluster.py stop FOLDER

    export SLURM_CONF=FOLDER/slurm.conf         then sinfo, sbatch, squeue ... speak to it

Needs root and Debian's packages (Slurm 22.05): munge slurmctld slurmd slurm-client; for --accounting, which
gives sacct and sacctmgr with their limits, also slurmdbd slurm-wlm-mysql-plugin mariadb-server-core
mariadb-client-core. No systemd, no cgroups. Partitions: `low` gives way to `high` after --grace seconds,
`abrupt` at once; a job that gives way is requeued. Every file lies in FOLDER. What is ended is known by its
pid and when that started.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from one_machine import accounting
from one_machine.conf import gpu_devices, write_conf
from one_machine.processes import PATH, alive, end, kill, launch, run, steps, wait_for, wait_until

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
PACKAGES = "munge slurmctld slurmd slurm-client"
LOCK = Path("/run/scaling-harness-cluster.lock")
SOCKET_PATH, STEP_NAME = 107, "_1234567.4294967291"
"""The longest path of a Unix socket, unix(7), and what follows the node's name in that of a job's step."""


def start(folder: Path, wanted: argparse.Namespace) -> None:
    """Bring up whatever is not up; called again with other settings, the controller restarts with them."""
    packages = f"{PACKAGES} {accounting.PACKAGES}" if wanted.accounting else PACKAGES
    daemons = (*DAEMONS, *accounting.DAEMONS) if wanted.accounting else DAEMONS
    if missing := [name for name in daemons if shutil.which(name, path=PATH) is None]:
        sys.exit(f"{', '.join(missing)} not found: apt-get install -y --no-install-recommends {packages}")
    longest = folder / f"spool-n{wanted.nodes}" / f"n{wanted.nodes}{STEP_NAME}"
    if (excess := len(str(longest)) - SOCKET_PATH) > 0:
        sys.exit(f"{folder} is {excess} characters too long: no step could open its socket there")
    for name in ("munge", "state", "log", "pids", "dev"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    start_munge(folder)
    gpus = gpu_devices(folder, wanted.gpus)
    with one_at_a_time():  # until the ports that are chosen are taken
        changed = write_conf(folder, wanted, gpus)
        if changed:
            end(folder, "slurmctld")
        if wanted.accounting:
            accounting.start_accounting(folder)
        start_controller(folder)
        for number in range(1, wanted.nodes + 1):
            start_node(folder, f"n{number}")
    wait_until(120, "the nodes to come up", lambda: ready_nodes(folder) == wanted.nodes)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Of all the clusters of this machine."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
    wait_until(60, "munge", lambda: run(folder, "munge", "-n", "-S", str(munge / "socket")).returncode == 0)


def start_controller(folder: Path) -> None:
    launch(folder, "slurmctld", ["slurmctld", "-D", "-f", str(folder / "slurm.conf")])
    wait_until(120, "slurmctld", lambda: "is UP" in run(folder, "scontrol", "ping").stdout)


def start_node(folder: Path, node: str) -> None:
    (folder / f"spool-{node}").mkdir(exist_ok=True)
    launch(folder, node, ["slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf")])


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
    for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
        end(folder, name)


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
            words.add_argument(
                "--accounting", action="store_true", help="slurmdbd and MariaDB too: sacct, sacctmgr, limits"
            )
    wanted = parser.parse_args()
    match wanted.verb:
        case "start":
            start(wanted.folder, wanted)
        case "stop":
            stop(wanted.folder)
        case "restart":
            restart(wanted.folder)
        case "crash":
            crash(wanted.folder, wanted.node)
        case "cut":
            cut(wanted.folder, wanted.node)
        case "up":
            start_node(wanted.folder, wanted.node)


if __name__ == "__main__":
    main()
