"""A step of molecular dynamics without the forces, for all atoms of all replicas; the twin of `motion_cuda`.

Serial: even for a hundred thousand atoms these loops take a hundredth of the time of the forces.
"""

from gmcore.kernels.compile import exact_jit
from gmcore.kernels.motion import advance_chain, drift_atom, kick_atom, thermalize_atom, twice_kinetic
from gmcore.kernels.philox import CELL, three_normals


@exact_jit
def kick(motion, n_kicks):
    """v += n_kicks dt/2 F/m."""
    for r in range(motion.velocities.shape[0]):
        for i in range(motion.velocities.shape[1]):
            kick_atom(r, i, motion, n_kicks)


@exact_jit
def kick_and_drift(motion, n_kicks, time_step):
    """As `kick`, then r += dt v."""
    for r in range(motion.velocities.shape[0]):
        for i in range(motion.velocities.shape[1]):
            kick_atom(r, i, motion, n_kicks)
            drift_atom(r, i, motion, time_step)


@exact_jit
def kick_and_diffuse(motion, n_kicks, time_step, bath, counter, offset):
    """As `kick`, then the middle A O A of BAOAB. The number of the step is counter (1,) int64 plus `offset`."""
    step = counter[0] + offset
    for r in range(motion.velocities.shape[0]):
        for i in range(motion.velocities.shape[1]):
            kick_atom(r, i, motion, n_kicks)
            drift_atom(r, i, motion, 0.5 * time_step)
            thermalize_atom(r, i, motion, bath, step)
            drift_atom(r, i, motion, 0.5 * time_step)


@exact_jit
def thermalize(motion, bath, counter, offset):
    """Only the O of `kick_and_diffuse`; on the CPU only, for NPT."""
    step = counter[0] + offset
    for r in range(motion.velocities.shape[0]):
        for i in range(motion.velocities.shape[1]):
            thermalize_atom(r, i, motion, bath, step)


@exact_jit
def cell_noise(keys, step, noise):
    """Fill noise (n_replicas, 3, 3) with normal deviates for the cells; it exists on the CPU only, as NPT does."""
    for r in range(noise.shape[0]):
        for a in range(3):
            noise[r, a, 0], noise[r, a, 1], noise[r, a, 2] = three_normals(keys[r, 0], keys[r, 1], step, a, CELL)


@exact_jit
def kinetic(motion, twice):
    """twice (n_replicas, n_atoms) = m v^2, eV."""
    for r in range(motion.velocities.shape[0]):
        for i in range(motion.velocities.shape[1]):
            twice[r, i] = twice_kinetic(r, i, motion)


@exact_jit
def advance_chains(twice, chain, n_times, duration, scale):
    """Advance each chain `n_times` by `duration`, from twice the kinetic energies (n_replicas,) on; fill scale."""
    for r in range(twice.shape[0]):
        factor = 1.0
        for _ in range(n_times):
            factor *= advance_chain(r, chain, twice[r] * factor * factor, duration)
        scale[r] = factor


@exact_jit
def scale_velocities(motion, scale):
    """v *= scale (n_replicas,)."""
    for r in range(motion.velocities.shape[0]):
        for i in range(motion.velocities.shape[1]):
            for a in range(3):
                motion.velocities[r, i, a] *= scale[r]
