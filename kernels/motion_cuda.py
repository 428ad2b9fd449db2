"""A step of molecular dynamics without the forces on the device, one thread per atom; the twin of `motion_cpu`."""

import math

from numba import cuda

from gmcore.kernels.compile import cuda_device_jit, cuda_jit
from gmcore.kernels.motion import advance_chain, drift_atom, kick_atom, thermalize_atom, twice_kinetic


@cuda_device_jit
def own_atom(shape):
    """Replica and atom of this thread; the replica is n_replicas where there is nothing to do."""
    thread = cuda.grid(1)
    r = min(thread // shape[1], shape[0])
    return r, thread - r * shape[1]


@cuda_jit
def kick(motion, n_kicks):
    """v += n_kicks dt/2 F/m."""
    r, i = own_atom(motion.velocities.shape)
    if r < motion.velocities.shape[0]:
        kick_atom(r, i, motion, n_kicks)


@cuda_jit
def kick_and_drift(motion, n_kicks, time_step):
    """As `kick`, then r += dt v."""
    r, i = own_atom(motion.velocities.shape)
    if r < motion.velocities.shape[0]:
        kick_atom(r, i, motion, n_kicks)
        drift_atom(r, i, motion, time_step)


@cuda_jit
def kick_and_diffuse(motion, n_kicks, time_step, bath, counter, offset):
    """As `kick`, then the middle A O A of BAOAB. The number of the step is counter (1,) int64 plus `offset`."""
    r, i = own_atom(motion.velocities.shape)
    if r < motion.velocities.shape[0]:
        kick_atom(r, i, motion, n_kicks)
        drift_atom(r, i, motion, 0.5 * time_step)
        thermalize_atom(r, i, motion, bath, counter[0] + offset)
        drift_atom(r, i, motion, 0.5 * time_step)


@cuda_jit
def kinetic(motion, twice):
    """twice (n_replicas, n_atoms) = m v^2, eV."""
    r, i = own_atom(motion.velocities.shape)
    if r < motion.velocities.shape[0]:
        twice[r, i] = twice_kinetic(r, i, motion)


@cuda_jit
def advance_chains(twice, chain, n_times, duration, scale):
    """Advance each chain `n_times` by `duration`, from twice the kinetic energies (n_replicas,) on; fill scale."""
    r = cuda.grid(1)
    if r < twice.shape[0]:
        factor = 1.0
        for _ in range(n_times):
            factor *= advance_chain(r, chain, twice[r] * factor * factor, duration)
        scale[r] = factor


@cuda_jit
def scale_velocities(motion, scale):
    """v *= scale (n_replicas,)."""
    r, i = own_atom(motion.velocities.shape)
    if r < motion.velocities.shape[0]:
        for a in range(3):
            motion.velocities[r, i, a] *= scale[r]


@cuda_jit
def mark_infinite(velocities, marked):
    """Set marked[0] = 1 if a velocity is infinite or not a number."""
    r, i = own_atom(velocities.shape)
    if r < velocities.shape[0]:
        for a in range(3):
            if not abs(velocities[r, i, a]) < math.inf:
                marked[0] = 1
