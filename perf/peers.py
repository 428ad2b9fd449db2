"""Other packages at the same task, where they are installed; None where one is not.

Each function prepares everything that the package lets be prepared and returns a callable that does the work.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from ase import Atoms

from gmcore.engine.neighbors import Pairs
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.structures import Batch
from perf.systems import HIDDEN


def installed(package: str) -> bool:
    """Whether `package` can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def apax_energy_forces(batch: Batch, pairs: Pairs, settings: DescriptorSettings) -> Callable | None:
    """apax (JAX): energy and forces of one periodic structure, compiled, neighbor list given, float32 network."""
    if not installed("apax"):
        return None
    import jax
    from apax.config.model_config import GMNNConfig

    jax.config.update("jax_enable_x64", True)
    basis = {"name": "gaussian", "n_basis": settings.n_basis, "r_min": settings.r_min, "r_max": settings.r_max}
    config = GMNNConfig(basis=basis, nn=list(HIDDEN), n_radial=settings.n_radial, w_init="normal", use_ntk=True)
    cell = batch.cells[0]
    builder = config.get_builder()(config.model_dump(), n_species=int(batch.numbers.max()) + 1)
    model = builder.build_energy_derivative_model(init_box=np.linalg.norm(cell, axis=1))
    offsets = pairs.displacements(batch.cells)[pairs.shift]
    arguments = [
        batch.positions @ np.linalg.inv(cell),  # it takes fractional coordinates in a periodic cell
        batch.numbers,
        np.stack([pairs.center, pairs.neighbor]),
        cell.T,
        offsets,
    ]
    arguments = [jax.numpy.asarray(array) for array in arguments]
    parameters = model.init(jax.random.PRNGKey(0), *arguments)
    compiled = jax.jit(model.apply)
    return lambda: jax.block_until_ready(compiled(parameters, *arguments))


def vesin_pairs(atoms: Atoms, cutoff: float) -> Callable | None:
    """vesin: full list with shifts."""
    if not installed("vesin"):
        return None
    from vesin import NeighborList

    search = NeighborList(cutoff=cutoff, full_list=True)
    box = atoms.cell.array
    return lambda: search.compute(atoms.positions, box, periodic=True, quantities="ijS")


def matscipy_pairs(atoms: Atoms, cutoff: float) -> Callable | None:
    """matscipy: full list with shifts."""
    if not installed("matscipy"):
        return None
    from matscipy.neighbours import neighbour_list

    return lambda: neighbour_list("ijS", atoms, cutoff)
