"""NEP: trained by neppo (PyTorch, gradient descent; its default losses and rates), run by nep-adapters (C++).

neppo is made for GPUs and takes a CPU when told to. nep-adapters wants every structure periodic.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from ase import Atoms
from nep_adapters.ase import NepAseCalculator
from neppo import StructureContainer, Trainer
from neppo.losses import EnergyLoss, ForceLoss
from neppo.models import NEP, Descriptor

from perf.pareto.worker import Stopwatch

CELL = "periodic vacuum"
PROBE_STEPS = 100


def fit(
    train: list[Atoms], validation: list[Atoms], options: dict, folder: Path, minutes: float, seed: int
) -> tuple[Stopwatch, dict]:
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    def trainer(output: Path | None) -> Trainer:
        torch.manual_seed(seed)
        descriptor = Descriptor(
            sorted(set(train[0].symbols)),
            radial_cutoff=6.0,
            angular_cutoff=4.0,
            n_max_radial=options.get("n_max", 6),
            n_max_angular=options.get("n_max", 6),
            n_basis_radial=options.get("n_basis", 6),
            n_basis_angular=options.get("n_basis", 6),
            l_max_5b=options.get("l_max_5b", 0),
        )
        model = NEP(descriptor, neurons=options["neurons"])
        containers = [StructureContainer(model, frames) for frames in (train, validation)]
        loss = EnergyLoss() + ForceLoss()
        return Trainer(model, loss, *containers, batch_size=8, device="cpu", seed=seed, output_directory=output)

    start = time.perf_counter()
    trial = trainer(None)
    made = time.perf_counter() - start
    trial.train(steps=PROBE_STEPS, report_interval=PROBE_STEPS)
    begin = time.perf_counter()
    trial.train(steps=PROBE_STEPS, report_interval=PROBE_STEPS)  # with one report, as below
    pace = (time.perf_counter() - begin) / PROBE_STEPS
    steps = max(PROBE_STEPS, int((60 * minutes - made) / pace))

    with Stopwatch() as training:
        final = trainer(folder / "model")
        final.train(steps=steps, report_interval=max(PROBE_STEPS, steps // 100))
    n_parameters = sum(parameter.numel() for parameter in final.model.parameters())
    return training, {"steps": steps, "parameters": n_parameters}


def load(folder: Path) -> NepAseCalculator:
    return NepAseCalculator(str(folder / "model" / "nep_best.txt"))
