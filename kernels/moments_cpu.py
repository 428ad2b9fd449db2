"""Stage "moments" on the CPU: M_{i,s,c} = sum_j R_s(rho_ij) monomial_c(u_ij), with both derivatives.

One thread owns a block of center atoms and a scratch area of a few rows, as long as the longest neighbor row. For a
center it gathers the neighbors inside the cutoff into these rows and then works along them, sixteen float32 pairs per
vector instruction; nothing per pair outlives its center. What lands on a neighbor (a force) is summed per block and
added up by the driver, in the same order every time: no atomics, the same bits run after run.

Rows are padded to the vector length with pairs whose radial functions are zero.

Formulas: docs/method.md, sections 1, 2, 6.3, 7.3 and 7.4. Because |u| = 1 only 16 of the 40 components are independent;
A(u) is the polynomial with those 16 coefficients, V its gradient with the components of u taken as independent. The
tangential projection (1 - u u^T)/rho makes the choice of representative irrelevant.
"""

import numba
import numpy as np

from gmcore.kernels.arguments import MAX_RADIAL
from gmcore.kernels.compile import exact_jit, jit, parallel_jit
from gmcore.kernels.formulas import (
    add_force_terms,
    add_force_terms_along,
    cutoff,
    monomials,
    monomials_along,
    pair_force,
    pair_force_along,
    polynomial,
    polynomial_gradient,
    real,
)
from gmcore.kernels.vector_cpu import (
    add_outer,
    beta_times_basis,
    gaussian_curvatures,
    gaussian_slopes,
    gaussian_values,
)

LANES = 16
N_COMPONENTS = 16

# Scratch rows. Sets of basis rows (B, B', B'') and radial rows (R, R', R'') follow the named ones.
UX, UY, UZ, RHO, INVERSE, F, DF, D2F, PX, PY, PZ, AX, AY, AZ, N_NAMED = range(15)


def n_scratch_rows(n_basis):
    """Rows of real scratch that any kernel of this file needs."""
    return N_NAMED + 3 * n_basis + 3 * MAX_RADIAL + 9


@exact_jit
def share(row_start, bounds):
    """Fill the centers where blocks begin, so that all have about as many pairs; returns the longest row.

    A center without neighbors still costs a little: it counts as one pair more than it has.
    """
    n_centers, n_blocks, longest, block = len(row_start) - 1, len(bounds) - 1, 0, 1
    first, last = row_start[0], row_start[n_centers] + n_centers
    bounds[0], bounds[n_blocks] = 0, n_centers
    for i in range(n_centers):
        while block < n_blocks and row_start[i] + i >= first + (last - first) * block / n_blocks:
            bounds[block] = i
            block += 1
        longest = max(longest, row_start[i + 1] - row_start[i])
    bounds[block:n_blocks] = n_centers
    return longest


@jit
def _gather(i, geometry, positions, r_max, reals, integers):
    """Neighbors of i inside the cutoff: unit vectors, distances, index and species; returns their number padded."""
    x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
    ux, uy, uz, rho = reals[UX], reals[UY], reals[UZ], reals[RHO]
    inverse = reals[INVERSE]
    limit = r_max * r_max
    n = 0
    for pair in range(geometry.row_start[i], geometry.row_start[i + 1]):
        j = geometry.neighbor[pair]
        k = geometry.shift[pair]
        dx = positions[j, 0] - x + geometry.displacement[k, 0]
        dy = positions[j, 1] - y + geometry.displacement[k, 1]
        dz = positions[j, 2] - z + geometry.displacement[k, 2]
        squared = dx * dx + dy * dy + dz * dz
        if squared < limit:
            ux[n] = dx
            uy[n] = dy
            uz[n] = dz
            rho[n] = squared
            integers[0, n] = j
            integers[1, n] = geometry.species[j]
            n += 1
    padded = (n + LANES - 1) // LANES * LANES
    for p in range(n, padded):
        ux[p] = uy[p] = uz[p] = 0.0
        rho[p] = limit
        integers[0, p] = i
        integers[1, p] = geometry.species[i]
    for p in range(padded):
        rho[p] = np.sqrt(rho[p])
        inverse[p] = real(r_max, 1.0) / rho[p]
        ux[p] *= inverse[p]
        uy[p] *= inverse[p]
        uz[p] *= inverse[p]
    return n, padded


@jit
def _basis(order, valid, n, radial, reals):
    """B_b = kappa f phi_b and its derivatives up to `order`, each set of rows behind the other."""
    r_max = radial.scalars[0]
    rho, f, df, d2f = reals[RHO], reals[F], reals[DF], reals[D2F]
    for p in range(n):
        f[p], df[p], d2f[p] = cutoff(rho[p], r_max)
    for p in range(valid, n):
        f[p] = df[p] = d2f[p] = real(r_max, 0.0)
    cutoffs, out = reals[F : D2F + 1], reals[N_NAMED:]
    if order == 0:
        gaussian_values(n, rho, cutoffs, radial.scalars, radial.centers, out)
    elif order == 1:
        gaussian_slopes(n, rho, cutoffs, radial.scalars, radial.centers, out)
    else:
        gaussian_curvatures(n, rho, cutoffs, radial.scalars, radial.centers, out)


@jit
def _radial(order, n, n_basis, beta, reals, species):
    """R_s = sum_b beta_sb B_b and derivatives up to `order`. beta is (n_species, n_basis, 8) of this center."""
    for k in range(order + 1):
        out = N_NAMED + 3 * n_basis + k * MAX_RADIAL
        beta_times_basis(n, n_basis, reals[N_NAMED + k * n_basis :], beta, species, reals[out:])


@jit
def _store(row, m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15):
    """Write the sixteen sums of one channel."""
    row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7] = m0, m1, m2, m3, m4, m5, m6, m7
    row[8], row[9], row[10], row[11], row[12], row[13], row[14], row[15] = m8, m9, m10, m11, m12, m13, m14, m15


@parallel_jit
def forward(geometry, positions, radial, beta, blocks, moments):
    """Fill moments (n_atoms, n_radial, 16)."""
    n_radial = moments.shape[1]
    n_basis = radial.centers.size
    for block in numba.prange(blocks.bounds.size - 1):
        reals, integers = blocks.reals[block], blocks.integers[block]
        ux, uy, uz = reals[UX], reals[UY], reals[UZ]
        zero = real(radial.scalars[0], 0.0)
        for i in range(blocks.bounds[block], blocks.bounds[block + 1]):
            valid, n = _gather(i, geometry, positions, radial.scalars[0], reals, integers)
            _basis(0, valid, n, radial, reals)
            _radial(0, n, n_basis, beta[geometry.species[i]], reals, integers[1])
            for s in range(n_radial):
                r = reals[N_NAMED + 3 * n_basis + s]
                m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = m8 = m9 = m10 = m11 = m12 = m13 = m14 = m15 = zero
                for p in range(n):
                    c = monomials(ux[p], uy[p], uz[p])
                    m0 += r[p] * c[0]
                    m1 += r[p] * c[1]
                    m2 += r[p] * c[2]
                    m3 += r[p] * c[3]
                    m4 += r[p] * c[4]
                    m5 += r[p] * c[5]
                    m6 += r[p] * c[6]
                    m7 += r[p] * c[7]
                    m8 += r[p] * c[8]
                    m9 += r[p] * c[9]
                    m10 += r[p] * c[10]
                    m11 += r[p] * c[11]
                    m12 += r[p] * c[12]
                    m13 += r[p] * c[13]
                    m14 += r[p] * c[14]
                    m15 += r[p] * c[15]
                _store(moments[i, s], m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15)


@jit
def _coefficients(row):
    """The sixteen numbers of one channel as a tuple, to be kept in registers along a row of pairs."""
    return (
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7],
        row[8], row[9], row[10], row[11], row[12], row[13], row[14], row[15],
    )  # fmt: skip


@jit
def _scatter(i, n, reals, integers, structure, g_positions, g_strain):
    """Add the pair vectors p = dE/dd to positions (+p at j, -p at i) and p (x) d to the strain of i's structure."""
    ux, uy, uz, rho = reals[UX], reals[UY], reals[UZ], reals[RHO]
    px, py, pz = reals[PX], reals[PY], reals[PZ]
    zero = real(rho[0], 0.0)
    sx = sy = sz = zero
    xx = xy = xz = yx = yy = yz = zx = zy = zz = zero
    for p in range(n):
        dx, dy, dz = rho[p] * ux[p], rho[p] * uy[p], rho[p] * uz[p]
        sx += px[p]
        sy += py[p]
        sz += pz[p]
        xx += px[p] * dx
        xy += px[p] * dy
        xz += px[p] * dz
        yx += py[p] * dx
        yy += py[p] * dy
        yz += py[p] * dz
        zx += pz[p] * dx
        zy += pz[p] * dy
        zz += pz[p] * dz
    for p in range(n):
        j = integers[0, p]
        g_positions[j, 0] += px[p]
        g_positions[j, 1] += py[p]
        g_positions[j, 2] += pz[p]
    g_positions[i, 0] -= sx
    g_positions[i, 1] -= sy
    g_positions[i, 2] -= sz
    strain = g_strain[structure]
    strain[0, 0] += xx
    strain[0, 1] += xy
    strain[0, 2] += xz
    strain[1, 0] += yx
    strain[1, 1] += yy
    strain[1, 2] += yz
    strain[2, 0] += zx
    strain[2, 1] += zy
    strain[2, 2] += zz


@jit
def _pair_forces(n, n_basis, n_radial, g_moments, reals):
    """p = sum_s R'_s A_s u + (R_s / rho)(V_s - (u.V_s) u) into the rows PX, PY, PZ."""
    ux, uy, uz, inverse = reals[UX], reals[UY], reals[UZ], reals[INVERSE]
    px, py, pz, t = reals[PX], reals[PY], reals[PZ], reals[AX]
    for p in range(n):
        px[p] = py[p] = pz[p] = t[p] = real(inverse[0], 0.0)
    for s in range(n_radial):
        r = reals[N_NAMED + 3 * n_basis + s]
        dr = reals[N_NAMED + 3 * n_basis + MAX_RADIAL + s]
        w = _coefficients(g_moments[s])
        for p in range(n):
            sums = t[p], px[p], py[p], pz[p]
            t[p], px[p], py[p], pz[p] = add_force_terms(sums, w, ux[p], uy[p], uz[p], r[p], dr[p])
    for p in range(n):
        sums = t[p], px[p], py[p], pz[p]
        px[p], py[p], pz[p] = pair_force(sums, ux[p], uy[p], uz[p], inverse[p])


@parallel_jit
def backward(geometry, positions, radial, beta, blocks, g_moments, wanted, g_positions, g_strain, g_beta):
    """Add to g_positions (n_blocks, n_atoms, 3), g_strain (n_blocks, n_structures, 3, 3), g_beta (n_blocks, ...).

    wanted = (positions, beta): what is not wanted is neither computed nor touched.
    """
    n_radial = g_moments.shape[1]
    n_basis = radial.centers.size
    want_positions, want_beta = wanted
    for block in numba.prange(blocks.bounds.size - 1):
        reals, integers = blocks.reals[block], blocks.integers[block]
        ux, uy, uz = reals[UX], reals[UY], reals[UZ]
        amplitudes = reals[N_NAMED + 3 * n_basis :]
        for i in range(blocks.bounds[block], blocks.bounds[block + 1]):
            center = geometry.species[i]
            valid, n = _gather(i, geometry, positions, radial.scalars[0], reals, integers)
            _basis(1 if want_positions else 0, valid, n, radial, reals)
            if want_positions:
                _radial(1, n, n_basis, beta[center], reals, integers[1])
                _pair_forces(n, n_basis, n_radial, g_moments[i], reals)
                _scatter(i, n, reals, integers, geometry.structure[i], g_positions[block], g_strain[block])
            if want_beta:
                for s in range(n_radial):
                    w = _coefficients(g_moments[i, s])
                    amplitude = amplitudes[s]
                    for p in range(n):
                        amplitude[p] = polynomial(w, ux[p], uy[p], uz[p])
                add_outer(n, n_basis, reals[N_NAMED:], amplitudes, integers[1], g_beta[block, center])


@jit
def _tangent(i, n, geometry, gg_positions, gg_strain, reals, integers):
    """For w = v_j - v_i + S d: rhod = u.w into row F, ud = (w - rhod u) / rho into AX, AY, AZ, w into PX, PY, PZ."""
    ux, uy, uz, rho, inverse = reals[UX], reals[UY], reals[UZ], reals[RHO], reals[INVERSE]
    ax, ay, az, px, py, pz, rho_dot = reals[AX], reals[AY], reals[AZ], reals[PX], reals[PY], reals[PZ], reals[F]
    strain = gg_strain[geometry.structure[i]]
    for p in range(n):
        j = integers[0, p]
        px[p] = gg_positions[j, 0] - gg_positions[i, 0]
        py[p] = gg_positions[j, 1] - gg_positions[i, 1]
        pz[p] = gg_positions[j, 2] - gg_positions[i, 2]
    cast = rho[0]
    xx, xy, xz = real(cast, strain[0, 0]), real(cast, strain[0, 1]), real(cast, strain[0, 2])
    yx, yy, yz = real(cast, strain[1, 0]), real(cast, strain[1, 1]), real(cast, strain[1, 2])
    zx, zy, zz = real(cast, strain[2, 0]), real(cast, strain[2, 1]), real(cast, strain[2, 2])
    for p in range(n):
        x, y, z = ux[p], uy[p], uz[p]
        wx = px[p] + rho[p] * (xx * x + xy * y + xz * z)
        wy = py[p] + rho[p] * (yx * x + yy * y + yz * z)
        wz = pz[p] + rho[p] * (zx * x + zy * y + zz * z)
        along = x * wx + y * wy + z * wz
        rho_dot[p] = along
        ax[p] = inverse[p] * (wx - along * x)
        ay[p] = inverse[p] * (wy - along * y)
        az[p] = inverse[p] * (wz - along * z)
        px[p] = wx
        py[p] = wy
        pz[p] = wz


@jit
def _moments_along(n, n_basis, n_radial, reals, out):
    """Md_s = sum_pairs R'_s rhod monomials(u) + R_s dmonomials(u).ud : the forward scatter with tangents."""
    ux, uy, uz, ax, ay, az = reals[UX], reals[UY], reals[UZ], reals[AX], reals[AY], reals[AZ]
    rho_dot = reals[F]
    zero = real(ux[0], 0.0)
    for s in range(n_radial):
        r = reals[N_NAMED + 3 * n_basis + s]
        dr = reals[N_NAMED + 3 * n_basis + MAX_RADIAL + s]
        m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = m8 = m9 = m10 = m11 = m12 = m13 = m14 = m15 = zero
        for p in range(n):
            c = monomials(ux[p], uy[p], uz[p])
            d = monomials_along(ux[p], uy[p], uz[p], ax[p], ay[p], az[p])
            a = dr[p] * rho_dot[p]
            b = r[p]
            m0 += a
            m1 += a * c[1] + b * d[1]
            m2 += a * c[2] + b * d[2]
            m3 += a * c[3] + b * d[3]
            m4 += a * c[4] + b * d[4]
            m5 += a * c[5] + b * d[5]
            m6 += a * c[6] + b * d[6]
            m7 += a * c[7] + b * d[7]
            m8 += a * c[8] + b * d[8]
            m9 += a * c[9] + b * d[9]
            m10 += a * c[10] + b * d[10]
            m11 += a * c[11] + b * d[11]
            m12 += a * c[12] + b * d[12]
            m13 += a * c[13] + b * d[13]
            m14 += a * c[14] + b * d[14]
            m15 += a * c[15] + b * d[15]
        _store(out[s], m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15)


@jit
def _pair_forces_along(n, n_basis, n_radial, g_moments, reals, sums):
    """d<p, w>/dd into PX, PY, PZ (docs/method.md, section 7.4 without U); on entry they hold w.

    The nine rows of `sums` are the sums t, q, dt, cross, b of `add_force_terms_along`; on return 0..2 hold p.
    """
    ux, uy, uz, inverse = reals[UX], reals[UY], reals[UZ], reals[INVERSE]
    ax, ay, az, rho_dot = reals[AX], reals[AY], reals[AZ], reals[F]
    px, py, pz = reals[PX], reals[PY], reals[PZ]
    t, qx, qy, qz, dt, cross = sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]
    bx, by, bz = sums[6], sums[7], sums[8]
    for row in range(9):
        for p in range(n):
            sums[row, p] = real(inverse[0], 0.0)
    for s in range(n_radial):
        r = reals[N_NAMED + 3 * n_basis + s]
        dr = reals[N_NAMED + 3 * n_basis + MAX_RADIAL + s]
        d2r = reals[N_NAMED + 3 * n_basis + 2 * MAX_RADIAL + s]
        w = _coefficients(g_moments[s])
        for p in range(n):
            old = t[p], qx[p], qy[p], qz[p], dt[p], cross[p], bx[p], by[p], bz[p]
            t[p], qx[p], qy[p], qz[p], dt[p], cross[p], bx[p], by[p], bz[p] = add_force_terms_along(
                old, w, ux[p], uy[p], uz[p], ax[p], ay[p], az[p], rho_dot[p], r[p], dr[p], d2r[p]
            )
    for p in range(n):
        total = t[p], qx[p], qy[p], qz[p], dt[p], cross[p], bx[p], by[p], bz[p]
        px[p], py[p], pz[p] = pair_force_along(
            total, ux[p], uy[p], uz[p], inverse[p], ax[p], ay[p], az[p], rho_dot[p], px[p], py[p], pz[p]
        )
        sums[0, p], sums[1, p], sums[2, p] = pair_force(total[:4], ux[p], uy[p], uz[p], inverse[p])


@jit
def _scatter_second(i, n, geometry, gg_positions, gg_strain, reals, integers, force, h_positions, h_strain):
    """Scatter Hess w (rows PX..PZ) and p (rows of `force`): S^T p joins the positions, p (x) (v_j - v_i) the strain."""
    structure = geometry.structure[i]
    _scatter(i, n, reals, integers, structure, h_positions, h_strain)
    strain = gg_strain[structure]
    for pair in range(n):
        j = integers[0, pair]
        for a in range(3):
            moved = strain[0, a] * force[0, pair] + strain[1, a] * force[1, pair] + strain[2, a] * force[2, pair]
            h_positions[j, a] += moved
            h_positions[i, a] -= moved
            for b in range(3):
                h_strain[structure, a, b] += force[a, pair] * (gg_positions[j, b] - gg_positions[i, b])


@parallel_jit
def double_backward(
    geometry, positions, radial, beta, blocks, g_moments, gg_positions, gg_strain, wanted,
    gg_moments, h_positions, h_strain, h_beta,
):  # fmt: skip
    """Derivatives of <g_positions, gg_positions> + <g_strain, gg_strain>.

    Fills gg_moments (n_atoms, n_radial, 16), adds to h_positions, h_strain, h_beta (per block as in `backward`).
    wanted = (positions, beta).
    """
    n_radial = g_moments.shape[1]
    n_basis = radial.centers.size
    want_positions, want_beta = wanted
    for block in numba.prange(blocks.bounds.size - 1):
        reals, integers = blocks.reals[block], blocks.integers[block]
        ux, uy, uz, ax, ay, az = reals[UX], reals[UY], reals[UZ], reals[AX], reals[AY], reals[AZ]
        rho_dot = reals[F]
        amplitudes = reals[N_NAMED + 3 * n_basis :]
        slopes = reals[N_NAMED + 3 * n_basis + MAX_RADIAL :]
        for i in range(blocks.bounds[block], blocks.bounds[block + 1]):
            center = geometry.species[i]
            valid, n = _gather(i, geometry, positions, radial.scalars[0], reals, integers)
            _basis(2 if want_positions else 1, valid, n, radial, reals)
            _radial(2 if want_positions else 1, n, n_basis, beta[center], reals, integers[1])
            _tangent(i, n, geometry, gg_positions, gg_strain, reals, integers)
            _moments_along(n, n_basis, n_radial, reals, gg_moments[i])
            w_all = g_moments[i]
            if want_positions:
                sums = reals[N_NAMED + 3 * n_basis + 3 * MAX_RADIAL :]
                _pair_forces_along(n, n_basis, n_radial, w_all, reals, sums)
                _scatter_second(i, valid, geometry, gg_positions, gg_strain, reals, integers, sums,
                                h_positions[block], h_strain[block])  # fmt: skip
            if want_beta:
                for s in range(n_radial):
                    w = _coefficients(w_all[s])
                    amplitude, slope = amplitudes[s], slopes[s]
                    for p in range(n):
                        gx, gy, gz = polynomial_gradient(w, ux[p], uy[p], uz[p])
                        amplitude[p] = gx * ax[p] + gy * ay[p] + gz * az[p]
                        slope[p] = rho_dot[p] * polynomial(w, ux[p], uy[p], uz[p])
                add_outer(n, n_basis, reals[N_NAMED:], amplitudes, integers[1], h_beta[block, center])
                add_outer(n, n_basis, reals[N_NAMED + n_basis :], slopes, integers[1], h_beta[block, center])
