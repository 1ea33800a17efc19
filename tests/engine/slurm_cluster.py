"""A SLURM of one node on this machine, brought up for tests and torn down after them.

Needs root and the packages slurm-wlm and munge; touches nothing outside of its own folder.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scancel", "scontrol")
_CONFIG = """ClusterName=mmtool
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
MpiDefault=none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes=ALL Default=NO MaxTime=60 State=UP PriorityTier=10
"""
_START_S = 60.0
_PAUSE = threading.Event()


def why_not() -> str:
    """Give what is missing for a cluster, nothing when it can be brought up."""
    lacking = [name for name in PROGRAMS if _program(name) is None]
    if lacking:
        return f"no {', '.join(lacking)} (apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "only root can bring up SLURM"


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextmanager
def cluster() -> Iterator[Mapping[str, str]]:
    """Bring up the cluster; give the environment variables by which its commands find it."""
    folder = Path(tempfile.mkdtemp(prefix="mmtool-slurm-", dir="/run"))
    folder.chmod(0o755)
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _write_config(folder)
        _start_munge(folder, daemons)
        for name in ("slurmctld", "slurmd"):
            daemons.append(_start([str(_program(name)), "-D"], env, folder / f"{name}.out"))
        _until_idle(env, folder, daemons)
        yield {"SLURM_CONF": env["SLURM_CONF"]}
    finally:
        subprocess.run(["scancel", "--user=root"], env=env, check=False, capture_output=True)
        _until_empty(env)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder)


def _write_config(folder: Path) -> None:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = {"controller": one.getsockname()[1], "daemon": other.getsockname()[1]}
    host = socket.gethostname().partition(".")[0]
    text = _CONFIG.format(folder=folder, host=host, **ports)
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="utf-8")
    for name in ("state", "spool"):
        (folder / name).mkdir()


def _start_munge(folder: Path, daemons: "list[subprocess.Popen[bytes]]") -> None:
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    where = {
        "socket": "munge.socket",
        "key-file": "munge.key",
        "pid-file": "munge.pid",
        "log-file": "munge.log",
        "seed-file": "munge.seed",
    }
    options = [f"--{option}={folder / name}" for option, name in where.items()]
    command = [str(_program("munged")), "--foreground", "--force", *options]
    daemons.append(_start(command, dict(os.environ), folder / "munge.out"))
    deadline = time.monotonic() + _START_S
    while not (folder / "munge.socket").exists():
        assert daemons[-1].poll() is None, (folder / "munge.out").read_text()
        assert time.monotonic() < deadline, "munged did not come up"
        _PAUSE.wait(0.02)


def _start(command: list[str], env: Mapping[str, str], output: Path) -> "subprocess.Popen[bytes]":
    with output.open("wb") as stream:
        return subprocess.Popen(
            command, env=env, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )


def _until_idle(
    env: Mapping[str, str], folder: Path, daemons: "list[subprocess.Popen[bytes]]"
) -> None:
    deadline = time.monotonic() + _START_S
    while "idle" not in _ask(env, "sinfo", "--noheader", "--format=%T"):
        for daemon in daemons:
            logs = "\n".join(p.read_text()[-2000:] for p in folder.glob("slurm*.log"))
            assert daemon.poll() is None, logs
        assert time.monotonic() < deadline, "the node did not become idle"
        _PAUSE.wait(0.05)


def _until_empty(env: Mapping[str, str]) -> None:
    deadline = time.monotonic() + _START_S
    while _ask(env, "squeue", "--noheader").strip() and time.monotonic() < deadline:
        _PAUSE.wait(0.1)


def _ask(env: Mapping[str, str], *command: str) -> str:
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True).stdout
