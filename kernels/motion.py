"""Equations of motion of one atom and of one thermostat, written once for every machine; replica r, atom i, axis a.

The arrays are those of `Motion`, `Bath` and `Chain` in `gmcore.kernels.arguments`; positions, velocities, heat and
chains are changed in place. The splittings are those of `gmcore.dynamics.langevin` and `gmcore.dynamics.nose_hoover`.

Without fast-math: the path of a replica must not depend on how many others there are.
"""

import math

from gmcore.kernels.compile import exact_jit
from gmcore.kernels.philox import ATOMS, three_normals

_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
SUZUKI_YOSHIDA = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)
"""Fractions of a step; their composition is of fourth order (Yoshida 1990)."""


@exact_jit
def kick_atom(r, i, motion, n_kicks):
    """Advance the velocity by `n_kicks` half steps under the same force: one that ends a step and one that begins."""
    terms, velocities = motion.terms, motion.velocities
    for a in range(3):
        force = terms[0, r, i, a]
        for m in range(1, terms.shape[0]):
            force += terms[m, r, i, a]
        change, v = motion.half_kick[i] * force, velocities[r, i, a]
        for _ in range(n_kicks):
            v += change
        velocities[r, i, a] = v


@exact_jit
def drift_atom(r, i, motion, duration):
    """Advance the position."""
    for a in range(3):
        motion.positions[r, i, a] += duration * motion.velocities[r, i, a]


@exact_jit
def thermalize_atom(r, i, motion, bath, step):
    """Ornstein-Uhlenbeck step v = c v + width R; the kinetic energy that it brings is added to the heat."""
    velocities = motion.velocities
    x, y, z = three_normals(bath.keys[r, 0], bath.keys[r, 1], step, i, ATOMS)
    gained = 0.0
    for a in range(3):
        normal = x if a == 0 else (y if a == 1 else z)
        before = velocities[r, i, a]
        after = bath.decay * before + bath.width[r, i] * normal
        gained += after * after - before * before
        velocities[r, i, a] = after
    bath.heat[r, i] += motion.half_mass[i] * gained


@exact_jit
def twice_kinetic(r, i, motion):
    """m v^2 of an atom, eV."""
    velocities = motion.velocities
    vx, vy, vz = velocities[r, i, 0], velocities[r, i, 1], velocities[r, i, 2]
    return 2.0 * motion.half_mass[i] * (vx * vx + vy * vy + vz * vz)


@exact_jit
def push_link(r, k, chain, twice, whole):
    """Advance link k by half a sub-step: its driving force between two halves of the damping by link k + 1."""
    xi, mass = chain.xi, chain.mass
    drive = twice if k == 0 else mass[r, k - 1] * (xi[r, k - 1] * xi[r, k - 1])
    gain = (drive - chain.target[r, k]) * (0.5 * whole / mass[r, k])
    if k + 1 < xi.shape[1]:
        damping = math.exp(-0.25 * whole * xi[r, k + 1])
        xi[r, k] = (gain + xi[r, k] * damping) * damping
    else:
        xi[r, k] += gain


@exact_jit
def advance_chain(r, chain, twice, duration):
    """Advance the chain of replica r; returns the factor of its velocities. `twice`: 2 E_kin before, eV."""
    xi, scale = chain.xi, 1.0
    for fraction in SUZUKI_YOSHIDA:
        whole = duration * fraction
        for k in range(xi.shape[1] - 1, -1, -1):
            push_link(r, k, chain, twice, whole)
        shrink = math.exp(-whole * xi[r, 0])
        scale *= shrink
        twice *= shrink * shrink
        for k in range(xi.shape[1]):
            chain.eta[r, k] += whole * xi[r, k]
        for k in range(xi.shape[1]):
            push_link(r, k, chain, twice, whole)
    return scale
