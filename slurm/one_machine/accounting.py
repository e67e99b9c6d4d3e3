"""Accounting for the one-machine cluster: slurmdbd, and a MariaDB for it that listens on no port at all."""

from __future__ import annotations

import sys
from pathlib import Path

from one_machine.conf import setting
from one_machine.processes import launch, run, wait_until

DAEMONS = ("mariadbd", "mariadb-install-db", "slurmdbd", "sacctmgr")
PACKAGES = "slurmdbd slurm-wlm-mysql-plugin mariadb-server-core mariadb-client-core"
CLUSTER = "one-machine"

DATABASE_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
CommunicationParameters=NoInAddrAny
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""


def start_accounting(folder: Path) -> None:
    """Both daemons, unless they are up; a new cluster is made known, and with it root's account."""
    start_database(folder)
    port = setting((folder / "slurm.conf").read_text(), "AccountingStoragePort")
    conf = folder / "slurmdbd.conf"
    conf.write_text(DATABASE_CONF.format(folder=folder, port=port))
    conf.chmod(0o600)
    launch(folder, "slurmdbd", ["slurmdbd", "-D"], {"SLURM_CONF": str(conf), **database_socket(folder)})
    wait_until(120, "slurmdbd", lambda: run(folder, "sacctmgr", "-n", "show", "cluster").returncode == 0)
    if CLUSTER not in run(folder, "sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").stdout.split():
        added = run(folder, "sacctmgr", "-i", "add", "cluster", CLUSTER)
        if added.returncode != 0:
            sys.exit(f"sacctmgr add cluster: {added.stdout}{added.stderr}")


def start_database(folder: Path) -> None:
    """Root alone may enter its folder, and with it its socket: so nobody else gets in without a password."""
    place = folder / "mariadb"
    everywhere = ["--no-defaults", "--user=root", f"--datadir={place}"]
    if not (place / "mysql").is_dir():
        place.mkdir(mode=0o700, exist_ok=True)
        words = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        run(folder, "mariadb-install-db", *everywhere, *words, seconds=300)
    options = [
        f"--socket={place}/socket",
        f"--pid-file={place}/pid",
        "--skip-networking",
        "--skip-log-bin",
        "--performance-schema=OFF",
        "--innodb-buffer-pool-size=64M",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-lock-wait-timeout=900",  # slurmdbd complains of less
    ]
    launch(folder, "mariadbd", ["mariadbd", *everywhere, *options])
    wait_until(120, "mariadbd", (place / "socket").exists)


def database_socket(folder: Path) -> dict[str, str]:
    """Where libmariadb finds `localhost`; slurmdbd has no setting for it."""
    return {"MYSQL_UNIX_PORT": f"{folder}/mariadb/socket"}
