"""Linear ACE by ace-jax: Bayesian linear regression, its prior and noise by the evidence; float64.

There is no epoch to choose, so the validation part is not used, nor is the training time a setting: it follows from
the size of the basis. Elements without a tabulated bond length (hydrogen) need r0, here the sum of covalent radii.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from ace_jax import ACECalculator
from ace_jax.basis.model import build_model
from ace_jax.fit.pipeline import FitConfig, load_fit_data, save_model
from ace_jax.fit.pipeline import fit as fit_model
from ase import Atoms
from ase.data import covalent_radii

from perf.pareto.worker import Stopwatch

CELL = "vacuum"
R_MAX = 5.0

jax.config.update("jax_enable_x64", True)


def fit(
    train: list[Atoms], validation: list[Atoms], options: dict, folder: Path, minutes: float, seed: int
) -> tuple[Stopwatch, dict]:
    numbers = sorted({int(number) for number in train[0].numbers})
    radii = covalent_radii[numbers]
    with Stopwatch() as training:
        lengths = np.add.outer(radii, radii)
        basis = build_model(numbers, options["order"], options["degree"], rcut=R_MAX, r0=lengths, seed=seed)
        config = FitConfig(
            model=basis,
            arm="linear",
            m_per_species=0,
            r0=None,
            batch=8,
            seed=seed,
            predict_train=False,
            lml_solver="cholesky",  # one pass over the data; its QR took half a minute for each of many evaluations
            map_steps=options.get("map_steps", 20),
            map_polish="off",  # minutes of Hessians for a gain of 1e-4 nats
        )
        result = fit_model(config, load_fit_data(config, train=train, test=validation))
        save_model(result, folder / "model")
    return training, {"parameters": int(basis.meta["n_B"])}


def load(folder: Path) -> ACECalculator:
    return ACECalculator(str(folder / "model" / "model.npz"))
