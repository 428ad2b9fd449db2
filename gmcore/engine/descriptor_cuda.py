"""Features of structures on the GPU: the twin of `GaussianMoments.features`."""

from __future__ import annotations

import numpy as np

from gmcore.device.cuda import Device
from gmcore.engine.neighbors_cuda import DeviceNeighborList
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.stages_cuda import DeviceContractions, DeviceMoments
from gmcore.engine.structures import Batch, SpeciesTable
from gmcore.engine.structures_cuda import DeviceBatch


class DeviceFeatures:
    """Neighbor list, moments and contractions on one device.

    Parameters
    ----------
    coefficients : beta in working type, see `GaussianMoments`.
    """

    def __init__(self, device: Device, settings: DescriptorSettings, dtype: str, coefficients: np.ndarray):
        self._device, self._settings = device, settings
        self._species = SpeciesTable(settings.species)
        self._moments = DeviceMoments(device, settings, dtype)
        self._contractions = DeviceContractions(device, settings.n_radial, dtype)
        self._beta = self._moments.pack(device.upload(coefficients, self._moments.dtype))

    def __call__(self, batch: Batch) -> np.ndarray:
        """Features (n_atoms, n_features), on the host."""
        on_device = DeviceBatch(self._device, batch, self._species)
        geometry = DeviceNeighborList(self._device, self._settings.r_max).update(on_device)
        moments = self._moments.forward(geometry, on_device.positions, self._beta)
        return self._device.download(self._contractions.forward(moments))
