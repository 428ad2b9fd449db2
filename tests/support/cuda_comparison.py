"""Device stages against the CPU at every order: the body of tests that run in the simulator or on a real device.

Run as a script it prints, as JSON, the relative errors of one case per line; the CUDA simulator must be chosen before
Numba is imported, hence a process of its own.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from ase import Atoms

from gmcore.device.cuda import open_device
from gmcore.engine.neighbors import build_pairs
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.stages import Contractions, Moments, make_geometry
from gmcore.engine.stages_cuda import DeviceContractions, DeviceMoments
from gmcore.engine.structures import Batch, SpeciesTable
from support.simulator import prepare
from support.systems import SYSTEMS

NAMES = {
    "moments": ("M",),
    "moments backward": ("positions", "strain", "beta"),
    "moments double_backward": ("gg_moments", "positions", "strain", "beta"),
    "contractions": ("G",),
    "contractions backward": ("M",),
    "contractions double_backward": ("gg_features", "M"),
}


def relative_error(value, expected, least_scale: float) -> float:
    """Largest deviation over the largest magnitude, or `least_scale`; infinite where a value is not finite."""
    value, expected = np.asarray(value, float), np.asarray(expected, float)
    if value.shape != expected.shape or not np.isfinite(value).all():
        return float("inf")
    scale = max(np.abs(expected).max(initial=0.0), least_scale)
    return float(np.abs(value - expected).max(initial=0.0) / (scale if scale > 0 else 1.0))


class Problem:
    """Random inputs for both stages, on the host and on the device."""

    def __init__(self, frames: list[Atoms], dtype: str, cutoff: float, n_radial: int, n_basis: int, skin: float = 0.0):
        rng = np.random.default_rng(7)
        self.batch = Batch.from_atoms(frames)
        numbers = sorted(set(self.batch.numbers.tolist()) | {99})
        self.settings = DescriptorSettings(tuple(numbers), cutoff, 0.5, n_basis, n_radial)
        pairs = build_pairs(self.batch, cutoff + skin)
        self.geometry = make_geometry(self.batch, SpeciesTable(numbers).index(self.batch.numbers), pairs)
        self.moments, self.contractions = Moments(self.settings, dtype), Contractions(n_radial, dtype)
        n_atoms, n_structures = self.batch.n_atoms, self.batch.n_structures
        draw = lambda *shape: rng.uniform(-1.0, 1.0, shape)  # noqa: E731
        self.beta = draw(*self.moments.beta_shape).astype(dtype)
        self.g_moments = draw(n_atoms, n_radial, 16).astype(dtype)
        self.gg_moments = draw(n_atoms, n_radial, 16).astype(dtype)
        self.g_features = draw(n_atoms, self.contractions.n_features).astype(dtype)
        self.gg_positions, self.gg_strain = draw(n_atoms, 3), draw(n_structures, 3, 3)

    def on_the_host(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Every order of both stages on the CPU."""
        of_positions = self.geometry, self.batch.positions, self.beta
        moments = self.moments.forward(*of_positions)
        return {
            "moments": (moments,),
            "moments backward": self.moments.backward(*of_positions, self.g_moments),
            "moments double_backward": self.moments.double_backward(
                *of_positions, self.g_moments, self.gg_positions, self.gg_strain
            ),
            "contractions": (self.contractions.forward(moments),),
            "contractions backward": (self.contractions.backward(moments, self.g_features),),
            "contractions double_backward": self.contractions.double_backward(
                moments, self.g_features, self.gg_moments
            ),
        }

    def on_the_device(self, host_moments: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
        """The same on the device, from the same moments."""
        device = open_device()
        upload = device.upload
        moments = DeviceMoments(device, self.settings, self.moments.dtype.name)
        contractions = DeviceContractions(device, self.settings.n_radial, self.moments.dtype.name)
        arrays = (upload(a) if isinstance(a, np.ndarray) else a for a in self.geometry)
        geometry = type(self.geometry)(*arrays)
        positions, beta, m = upload(self.batch.positions), upload(self.beta), upload(host_moments)
        g_moments, gg_moments, g_features = map(upload, (self.g_moments, self.gg_moments, self.g_features))
        gg_positions, gg_strain = upload(self.gg_positions), upload(self.gg_strain)
        results = {
            "moments": (moments.forward(geometry, positions, beta),),
            "moments backward": moments.backward(geometry, positions, beta, g_moments),
            "moments double_backward": moments.double_backward(
                geometry, positions, beta, g_moments, gg_positions, gg_strain
            ),
            "contractions": (contractions.forward(m),),
            "contractions backward": (contractions.backward(m, g_features),),
            "contractions double_backward": contractions.double_backward(m, g_features, gg_moments),
        }
        return {name: tuple(map(device.download, values)) for name, values in results.items()}

    def errors(self) -> dict[str, float]:
        """Relative error of every result. Forces that cancel, as on a single atom, are compared with the strain's."""
        host = self.on_the_host()
        device = self.on_the_device(host["moments"][0])
        errors = {}
        for name, results in NAMES.items():
            for result, value, expected in zip(results, device[name], host[name]):
                strain = host[name][results.index("strain")] if result == "positions" else 0.0
                least_scale = np.abs(strain).max(initial=0.0) / self.settings.r_max
                errors[f"{name}: {result}"] = relative_error(value, expected, least_scale)
        return errors


def frames(name: str) -> list[Atoms]:
    """One named system, or the mixed batch: several sizes, empty structures first, in the middle and last."""
    if name != "mixed":
        return [SYSTEMS[name]()]
    names = ("water_molecule", "single_atom", "empty_periodic", "small_cell", "no_neighbors")
    return [SYSTEMS["empty"](), *(SYSTEMS[n]() for n in names), SYSTEMS["empty"]()]


def main() -> None:
    prepare()
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(Problem(frames(case.pop("system")), **case).errors()), flush=True)


if __name__ == "__main__":
    main()
