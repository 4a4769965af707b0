"""Where the tests on a real SLURM cannot run, they say why in plain words."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import cluster


def test_another_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cluster.obstacle() == "SLURM's daemons are started as root, and this is another user"


def test_no_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster.obstacle() == (
        "munged, slurmctld, slurmd, sbatch, srun, squeue, scontrol, scancel, sinfo are not installed, and there is no "
        "apt-get to install slurm-wlm and munge"
    )


def test_packages_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cluster, "POLICY", tmp_path / "policy-rc.d")
    apt_get = tmp_path / "apt-get"
    apt_get.write_text("#!/bin/sh\necho some text\necho 'E: Unable to locate package munge' >&2\nexit 100\n")
    apt_get.chmod(0o755)
    assert cluster.install() == "slurm-wlm and munge cannot be installed: E: Unable to locate package munge"
    assert not cluster.POLICY.exists()


def test_ports_are_free_and_different():
    assert len(set(cluster.free_ports(3))) == 3
