"""A SLURM cluster of one node on this machine, for one test: its own key, ports and folders; nothing of it stays.

with Cluster(folder) as cluster:
    subprocess.run(["sbatch", …], env=os.environ | cluster.environment)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
PACKAGES = ("slurm-wlm", "munge")
POLICY = Path("/usr/sbin/policy-rc.d")  # asked by Debian's packages before they start a service
TAIL = 15  # lines of a log to show

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=30
MinJobAge=300
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs of SLURM and munge that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def obstacle() -> str:
    """Why SLURM cannot be started here; "" if it can, as far as one knows before trying."""
    if os.name != "posix" or os.geteuid() != 0:
        return "SLURM's daemons are started as root, and this is another user"
    if missing() and shutil.which("apt-get") is None:
        return f"{', '.join(missing())} are not installed, and there is no apt-get to install {' and '.join(PACKAGES)}"
    return ""


def install() -> str:
    """Install SLURM from the distribution if it is not there, without starting its services; why not, or ""."""
    if not missing():
        return ""
    ours = not POLICY.exists()
    try:
        if ours:
            POLICY.write_text("#!/bin/sh\nexit 101\n")
            POLICY.chmod(0o755)
        options = ("-y", "--no-install-recommends", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20")
        reason = _apt_get("install", *options, *PACKAGES)
        if reason:  # the lists of packages are missing, or old
            reason = _apt_get("update") or _apt_get("install", *options, *PACKAGES)
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)
    return f"{' and '.join(PACKAGES)} cannot be installed: {reason}" if reason else ""


def _apt_get(*arguments: str) -> str:
    """Run apt-get; the last line of its complaint, or ""."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return " ".join((done.stderr or done.stdout).strip().splitlines()[-1:]) if done.returncode else ""


class Cluster:
    """munged, slurmctld and slurmd in the foreground below one folder, as children of this process.

    Args:
        folder: for sockets, logs and state; a path short enough for a socket (about 90 characters).
        cpus: jobs of one CPU that run side by side.
    """

    def __init__(self, folder: Path, cpus: int = min(2, os.cpu_count() or 1)):
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]
        self.conf = folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.conf)}
        self.daemons: list[subprocess.Popen] = []
        self.cpus = cpus

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *command: str) -> str:
        """Output of one of SLURM's commands.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def queue(self) -> dict[str, str]:
        """Jobs in the queue and their states; each element of an array by itself."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        return {words[0]: words[1] for words in map(str.split, lines)}

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        for name in ("state", "spool"):
            (self.folder / name).mkdir(exist_ok=True)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(256))
        self.conf.write_text(CONF.format(host=self.host, folder=self.folder, ports=free_ports(2), cpus=self.cpus))
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
        files |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        self._daemon("munged", "--foreground", "--force", *(f"--{o}={self.folder / n}" for o, n in files.items()))
        self._wait(lambda: (self.folder / "munge.socket").exists(), "munged has no socket")
        self._daemon("slurmctld", "-D", "-f", str(self.conf))
        self._daemon("slurmd", "-D", "-f", str(self.conf))
        self._wait(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T"), "the node is not idle")

    def _daemon(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("w") as out:
            self.daemons.append(
                subprocess.Popen(command, env=os.environ | self.environment, stdout=out, stderr=subprocess.STDOUT)
            )

    def _wait(self, ready: Callable[[], bool], otherwise: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                if ready():
                    return
            if any(daemon.poll() is not None for daemon in self.daemons):
                break
            time.sleep(0.1)
        raise RuntimeError(f"SLURM did not start: {otherwise}.\n{self.logs()}")

    def logs(self) -> str:
        """The last lines of each daemon's log."""
        parts = []
        for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")]):
            lines = path.read_text(errors="replace").splitlines()[-TAIL:]
            parts.append("\n".join([f"--- {path.name}", *lines]))
        return "\n".join(parts)

    def stop(self) -> None:
        """Cancel all jobs, then end the daemons."""
        if len(self.daemons) == 3:
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                for job in self.queue():
                    self.run("scancel", "--signal=KILL", "--full", job)
                    self.run("scancel", job)
                end = time.monotonic() + 40
                while self.queue() and time.monotonic() < end:
                    time.sleep(0.2)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()


def free_ports(n: int) -> list[int]:
    """Ports of this machine that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
