"""Configurations to start from, one per kind of training; every one passes its own check."""

from __future__ import annotations

from gmcore.errors import GMError
from gmcore.suggest import did_you_mean

_HEAD = """\
# Check with: gmtensor validate {file}     Train with: gmtensor train {file}
# Every key with its meaning and default: gmtensor schema, or docs/configuration.md
output: runs/{name}                  # relative to this file, like every path here
seed: 1
data:
  files: [frames.extxyz]             # .xyz .extxyz | .traj .db .json | .npz | .h5 .hdf5
"""


_TRAINING = """\
training:
  preset: standard                   # or paper: the recipe of the publication, for reproduction
  epochs: 300
  batch_size: 8
  members: 3                         # models in the committee
  dtype: float32
"""

_KINDS = {
    "d-tensor": """\
  units: {length: A, d_tensor: cm^-1}
  keys: {d_tensor: D}                # label: its name in the files
  split: {train: 900, validation: 150, test: 150, seed: 1}
descriptor: {r_max: 8.0, r_min: 0.5, n_basis: 7, n_radial: 5}
network: {hidden: [512, 512]}
properties:
  d_tensor: {basis: positions}       # or moments: no origin, local
""",
    "potential": """\
  units: {length: A, energy: eV, forces: eV/A}   # stress: eV/A^3 where stress_weight is above 0
  keys: {energy: energy, forces: forces}         # label: its name in the files
  split: {train: 900, validation: 100, test: 200, seed: 1}
descriptor: {r_max: 6.5, r_min: 0.5, n_basis: 7, n_radial: 5}
network: {hidden: [512, 512]}
properties:
  energy: {energy_weight: 1.0, forces_weight: 4.0, stress_weight: 0.0}
""",
    "charges": """\
  units: {length: A, charges: e, dipole: e*A}
  keys: {charges: charges, dipole: dipole}       # label: its name in the files
  total_charge: 0                                # a number, or the name of a key in the files
  split: {train: 900, validation: 100, test: 200, seed: 1}
descriptor: {r_max: 6.5, r_min: 0.5, n_basis: 7, n_radial: 5}
network: {hidden: [512, 512]}
properties:
  charges: {conserve: true, origin: coordinates, charges_weight: 1.0, dipole_weight: 1.0}
""",
    "tensor": """\
  units: {length: A, tensor: a.u.}   # a polarizability in Bohr^3
  keys: {tensor: alpha}              # label: its name in the files
  split: {train: 800, validation: 100, test: 100, seed: 1}
descriptor: {r_max: 6.5, r_min: 0.5, n_basis: 7, n_radial: 5}
network: {hidden: [512, 512]}
properties:
  tensor: {basis: moments}           # or positions
""",
}

KINDS = tuple(_KINDS)


def template(kind: str, file: str = "config.yaml") -> str:
    """Return a commented configuration of the `kind`, one of `KINDS`; `file` is the name its comments use."""
    if kind not in _KINDS:
        raise GMError(f"there is no template {kind!r}{did_you_mean(kind, _KINDS)}")
    return _HEAD.format(file=file, name=kind.replace("-", "_")) + _KINDS[kind] + _TRAINING
