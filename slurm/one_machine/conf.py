"""slurm.conf and gres.conf of the one-machine cluster, and the ports it listens on."""

from __future__ import annotations

import argparse
import os
import random
import socket
import stat
import time
from pathlib import Path

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
{accounting}
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
# on a busy machine, or one that stood still, silence is no loss of a node
SlurmdTimeout=120
SlurmctldTimeout=120
MessageTimeout=60
BatchStartTimeout=60
UnkillableStepTimeout=30
CompleteWait=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=60 DefaultTime=5 PriorityTier=1 GraceTime={grace} State=UP
PartitionName=abrupt Nodes=ALL MaxTime=60 DefaultTime=5 PriorityTier=1 GraceTime=0 State=UP
PartitionName=high Nodes=ALL MaxTime=60 DefaultTime=5 PriorityTier=10 PreemptMode=OFF State=UP
"""


ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge/socket
AccountingStorageEnforce=limits"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"

PORTS = 20
"""Of a row of so many, the controller has the first, the nodes those after it, slurmdbd the last."""


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
    accounting = (
        ACCOUNTING.format(folder=folder, port=port + PORTS - 1) if wanted.accounting else NO_ACCOUNTING
    )
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
        accounting=accounting,
    )
    (folder / "gres.conf").write_text(gpus)
    (folder / "plugstack.conf").write_text("")
    (folder / "slurm.conf").write_text(text)
    return text != old


def base_port(old: str) -> int:
    """The port that was taken before, else the first of a row of free ones: below those that frontier.sbatch
    takes, and those that the kernel gives to connections."""
    if old:
        return int(setting(old, "SlurmctldPort"))
    while True:
        first = random.randrange(10_000, 20_000, 50)
        if all(is_free(first + offset) for offset in range(PORTS)):
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
