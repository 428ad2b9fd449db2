"""A stand-in for SLURM: sbatch runs a job script as SLURM would, with srun and scontrol of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from support.places import ROOT, environment

OPTIONS = {"job-name", "time", "ntasks", "cpus-per-task", "requeue", "open-mode", "output", "array"}
"""Of sbatch, as far as the scripts use them."""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
echo $$ > "$SLURM_STAND_IN/step"
exec "$@"
"""
SCONTROL = """#!/bin/bash
[[ $1 == requeue ]] && echo "$2" >> "$SLURM_STAND_IN/requeued"
"""
GMTENSOR = f"""#!/bin/bash
exec {sys.executable} -m gmcore "$@"
"""


class Slurm:
    """A cluster with one node.

    Parameters
    ----------
    folder : where jobs run and write their logs.
    gmtensor : script in place of the program (default: the program).
    """

    def __init__(self, folder: Path, gmtensor: str = GMTENSOR):
        self.folder, self._state = folder, folder / "slurm"
        self._state.mkdir()
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("gmtensor", gmtensor)):
            path = self._state / name
            path.write_text(text)
            path.chmod(0o755)

    def sbatch(self, script: Path, preempt: Callable[[], bool] | None = None) -> list[list[int]]:
        """Run a job, or all jobs of an array, and return the exit codes of each, one for each time that it ran.

        Parameters
        ----------
        preempt : asked until it says that the step should get SIGTERM, once.
        """
        found = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(), flags=re.M)
        options = dict(found)
        assert options.keys() <= OPTIONS, options
        assert len(found) == script.read_text().count("#SBATCH") and "requeue" in options
        assert options["open-mode"] == "append"  # or a job that runs again would overwrite its log
        if "array" not in options:
            return [self._job(script, options, {}, preempt)]
        first, last = map(int, options["array"].split("-"))
        tasks = range(first, last + 1)
        return [
            self._job(
                script,
                options,
                {
                    "SLURM_ARRAY_JOB_ID": "41",
                    "SLURM_ARRAY_TASK_ID": str(task),
                    "SLURM_ARRAY_TASK_COUNT": str(len(tasks)),
                },
                preempt,
            )
            for task in tasks
        ]

    def _job(self, script: Path, options: dict, more: dict, preempt: Callable[[], bool] | None) -> list[int]:
        task = more.get("SLURM_ARRAY_TASK_ID", "")
        variables = {"SLURM_JOB_ID": "42", "SLURM_CPUS_PER_TASK": "1", "SLURM_STAND_IN": str(self._state), **more}
        names = {"%x": options["job-name"], "%j": "42", "%A": "41", "%a": task}
        log = re.sub("%[xjAa]", lambda place: names[place[0]], options["output"])
        env = environment(**variables)
        env["PATH"] = f"{self._state}{os.pathsep}{env['PATH']}"
        env["PYTHONPATH"] = str(ROOT)
        codes: list[int] = []
        while not codes or self._requeued(f"41_{task}" if task else "42"):
            assert len(codes) < 5, codes
            with open(self.folder / log, "ab") as stream:
                job = subprocess.Popen(["bash", str(script)], cwd=self.folder, env=env, stdout=stream, stderr=stream)
                while preempt is not None and not codes and job.poll() is None:
                    if preempt():
                        os.kill(int((self._state / "step").read_text()), signal.SIGTERM)
                        break
                    time.sleep(0.01)
                codes.append(job.wait(300))
        return codes

    def _requeued(self, job: str) -> bool:
        """Whether the job was put back into the queue since the last call."""
        path = self._state / "requeued"
        if not path.exists():
            return False
        wanted = path.read_text().split()
        path.unlink()
        assert wanted == [job]
        return True
