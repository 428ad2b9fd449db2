"""Templates of configurations: trainings of each kind, dynamics, labels, a workflow, an analysis. All are valid."""

from __future__ import annotations

from gmcore.errors import GMError, excerpt
from gmcore.suggest import did_you_mean

_HEAD = """\
# Check with: gmtensor validate {file}     Train with: gmtensor train {file}
# All keys with defaults and descriptions: gmtensor schema, or docs/configuration.md
output: runs/{name}                  # relative to this file, like every path here
seed: 1
data:
  files: [frames.extxyz]             # .xyz .extxyz | .traj .db .json | .npz | .h5 .hdf5
"""


_TRAINING = """\
training:
  preset: standard                   # or fast: smaller, a third of the cost; or paper: the settings of the publication
  # descriptor, network, batches and rates are those of the preset; every key of them can be given
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
properties:
  d_tensor:                          # the head is that of the preset: moments; positions in the publication
""",
    "potential": """\
  units: {length: A, energy: eV, forces: eV/A}   # stress: eV/A^3 if stress_weight is above 0
  keys: {energy: energy, forces: forces}         # label: its name in the files
  split: {train: 900, validation: 100, test: 200, seed: 1}
properties:
  energy: {energy_weight: 1.0, forces_weight: 4.0, stress_weight: 0.0}
""",
    "charges": """\
  units: {length: A, charges: e, dipole: e*A}
  keys: {charges: charges, dipole: dipole}       # label: its name in the files
  total_charge: 0                                # a number, or the name of a key in the files
  split: {train: 900, validation: 100, test: 200, seed: 1}
properties:
  charges: {conserve: true, origin: coordinates, charges_weight: 1.0, dipole_weight: 1.0}
""",
    "tensor": """\
  units: {length: A, tensor: a.u.}   # a polarizability in Bohr^3
  keys: {tensor: alpha}              # label: its name in the files
  split: {train: 800, validation: 100, test: 100, seed: 1}
properties:
  tensor: {basis: moments}           # or positions
""",
}

_DYNAMICS = """\
# Run with: gmtensor md {file}     After an interruption, run the same command again to continue.
# All keys with defaults and descriptions: docs/dynamics.md
output: runs/md                      # relative to this file, like every path here
potential: runs/potential/model.h5   # a committee uses its mean
structure: {{file: frames.extxyz, index: 0, relax: true}}
replicas:                            # one for each combination of temperature and seed
  temperatures: [25, 50, 75, 100]    # K
  seeds: [1, 2]
ensemble: {{kind: langevin, friction: 1.0}}   # 1/ps; or nose_hoover, npt, nve
time_step: 0.5                       # fs
equilibration: 5                     # ps, not recorded
duration: 50                         # ps; can be extended later
chunk: 0.5                           # ps between checkpoints; an interruption loses at most this much
record: {{positions: 10, velocities: 5, scalars: 10}}   # intervals in steps
d_tensor:                            # remove this section for a run without D
  model: runs/d_tensor/model.h5
  every: 10                          # steps
  molecule: {{metal: Co}}              # or indices: [0, 1, 2, ...]
stop: {{temperature: 1000, broken_bonds: 1.6}}   # K, ratio to the initial length
"""

_WORKFLOW = """\
# Run with: gmtensor run {file}     After an interruption, run the same command again to continue.
# Write the files of the steps with: gmtensor template potential -o potential.yaml, and likewise d-tensor and md.
output: runs/workflow                # record of finished steps; relative to this file, like every path here
train: [potential.yaml, d_tensor.yaml]   # trainings, in order
md: md.yaml                          # dynamics; its analysis and its report follow
"""

_ANALYSIS = """\
# Use with: gmtensor analyze RUN --config {file}     The section "analysis" of a run has the same keys.
# All keys with defaults and descriptions: docs/analysis.md
unit: cm^-1                          # of D and E: cm^-1, MHz, GHz, meV or K
discard: 5                           # ps at the start of each replica (default: a tenth; 0 after an equilibration)
blocks: 5                            # per replica, for error estimates
max_lag: 2                           # ps, of autocorrelation functions
max_wavenumber: 2000                 # cm^-1, of spectra
# metal: Co                          # default: the only metal of the molecule
# modes: true                        # harmonic modes and dD/dq (default: only for molecules)
# reference:                         # values to compare with, for example from a publication
#   source: name of the column in the report
#   values:
#     - {{quantity: D, value: -105.7, unit: cm^-1, temperature: 100}}
"""

_LABELS = """\
# Use with: gmtensor label FRAMES {file} -o labeled.extxyz     After an interruption, run the same command again.
# All keys with defaults and descriptions: docs/labels.md
method: openmolcas                   # or orca, ase, python, each with a section of its name
total_charge: -2                     # e, of frames that do not state it
multiplicity: 4                      # 2S + 1, of frames that do not state it
jobs: 2                              # frames at the same time
time_limit: 600                      # s a frame
openmolcas: {{basis: ANO-RCC-VDZ}}
# orca: {{template: zfs.inp}}          # an input with {{charge}}, {{multiplicity}} and {{coordinates}}
# ase:                               # energies and forces
#   calculator: tblite.ase.TBLite    # pip install "gmtensor[label]"
#   arguments: {{method: GFN2-xTB, verbosity: 0}}
#   charge: charge                   # names under which the calculator takes them
#   multiplicity: multiplicity
# python: {{function: "ligand_field.py:d_tensor"}}   # called as f(numbers, positions) or f(atoms)
"""

_OTHERS = {"md": _DYNAMICS, "label": _LABELS, "workflow": _WORKFLOW, "analysis": _ANALYSIS}

KINDS = (*_KINDS, *_OTHERS)


def template(kind: str, file: str = "config.yaml") -> str:
    """Return a commented configuration.

    Parameters
    ----------
    kind : one of `KINDS`.
    file : name of the file that the comments mention.

    Raises
    ------
    GMError : there is no such template.
    """
    if kind in _OTHERS:
        return _OTHERS[kind].format(file=file)
    if kind not in _KINDS:
        raise GMError(f"unknown template {excerpt(kind)}{did_you_mean(kind, KINDS)}")
    return _HEAD.format(file=file, name=kind.replace("-", "_")) + _KINDS[kind] + _TRAINING
