"""Features of structures on the GPU: the twin of `GaussianMoments.features`."""

from __future__ import annotations

import numpy as np

from .cuda import Device
from .device_batch import DeviceBatch
from .neighbors_cuda import DeviceNeighborList
from .settings import DescriptorSettings
from .stages_cuda import DeviceContractions, DeviceMoments
from .structures import Batch, SpeciesTable


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
        self._beta = device.upload(coefficients, self._moments.dtype)

    def __call__(self, batch: Batch) -> np.ndarray:
        """Features (n_atoms, n_features), on the host."""
        on_device = DeviceBatch(self._device, batch, self._species)
        geometry = DeviceNeighborList(self._device, self._settings.r_max).update(on_device)
        moments = self._moments.forward(geometry, on_device.positions, self._beta)
        return self._device.download(self._contractions.forward(moments))
