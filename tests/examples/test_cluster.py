"""The job scripts of examples/cluster, with a stand-in for SLURM: jobs that are preempted go on where they were."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml

from support.md_runs import assert_same_run, raw
from support.pages import page
from support.places import ROOT
from support.slurm import Slurm

SCRIPTS = ROOT / "examples" / "cluster"
pytestmark = pytest.mark.skipif(os.name != "posix" or shutil.which("bash") is None, reason="needs bash and signals")


@pytest.mark.slow
def test_a_job_that_is_preempted_goes_on(inputs, whole, tmp_path):
    content = raw(inputs, "run")
    (tmp_path / "md.yaml").write_text(yaml.safe_dump(content))
    first = tmp_path / "run" / "state.npz"
    slurm = Slurm(tmp_path)
    (codes,) = slurm.sbatch(SCRIPTS / "md.sbatch", preempt=first.exists)
    log = (tmp_path / "md-42.log").read_text()
    assert codes == [75, 0], log
    assert "SIGTERM: ending after this chunk" in log and log.splitlines()[-1].startswith("written: "), log
    assert_same_run(tmp_path / "run", whole)


RECORD = """#!/bin/bash
echo "$OMP_NUM_THREADS $@" >> calls
if [ -e "again" ]; then rm again; exit 75; fi
"""


def test_arrays(tmp_path):
    slurm = Slurm(tmp_path, RECORD)
    (tmp_path / "again").touch()
    assert slurm.sbatch(SCRIPTS / "replicas.sbatch") == [[75, 0], [0], [0], [0]]
    assert slurm.sbatch(SCRIPTS / "committee.sbatch") == [[0]] * 3
    assert slurm.sbatch(SCRIPTS / "predict.sbatch") == [[0]] * 16
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[:5] == [f"1 md md.yaml --run r{k} --max-time 23:45" for k in (1, 1, 2, 3, 4)]
    assert calls[5:8] == [f"1 train train.yaml --member {k} --max-time 23:45" for k in range(3)]
    wanted = [f"1 predict model.h5 frames.xyz -o predictions_{k}.extxyz --shard {k}/16" for k in range(1, 17)]
    assert calls[8:] == [f"{call} --max-time 3:50" for call in wanted]
    assert (tmp_path / "replicas-41_1.log").exists()


def test_the_page_shows_the_script():
    script = (SCRIPTS / "md.sbatch").read_text().splitlines()
    shown = page("cluster.md").split("```bash\n")[1].split("```")[0].splitlines()
    assert shown == [line for line in script if not line.startswith("# ")]
