"""Stage "moments" on the GPU: M_{i,s,c} = sum_j R_s(rho_ij) monomial_c(u_ij), with both derivatives.

One warp is a block, in `forward` also two, and works on one center at a time, 32 neighbors after another. First each
lane computes the geometry and the radial functions of its own pair and leaves them in shared memory; then each lane
adds up sums of its own over the 32 pairs. Thus the 16 n_radial sums of a center need few registers and no exchange
between lanes, and their order is fixed. What belongs to a pair alone (its share of a force) never leaves its lane.

No atomics, hence the same bits run after run: a force is p_ij of the own row minus p_ji of the neighbors' rows, so the
vectors p are written pair by pair and summed afterwards (`sum_positions`) through `geometry.reverse`, the number of the
reverse pair, which `find_reverse` writes once per neighbor list. The other ways cost more: computing p_ji again where
it is needed reads the 16 n_radial cotangents of every neighbor, ten times the memory traffic; sums in fixed-point
numbers need a bound on what they add. Strain is summed per center, then per structure; g_beta per block, then over
blocks.

The argument lists are those of `moments_cpu` without `blocks`. As there, the results in positions, strain and beta are
partial sums: here one row per pair, per center and per block. In `forward` and `backward` beta, moments and the results
in positions and strain are stacks over the members of a committee, (n_members, ...), one launch for all: the second
index of a block is its member.

In float32 kernels only differences of positions and the last sums are computed in float64.

Formulas: docs/method.md, sections 1, 2, 6.3, 7.3 and 7.4; see also `moments_cpu`.
"""

from numba import cuda

from gmcore.kernels.arguments import MAX_RADIAL
from gmcore.kernels.compile import cuda_device_jit, cuda_jit
from gmcore.kernels.formulas import (
    add_force_terms,
    add_force_terms_along,
    cutoff,
    direction,
    gaussian,
    monomials,
    monomials_along,
    pair_force,
    pair_force_along,
    polynomial,
    polynomial_gradient,
    real,
)

LANES = 32  # threads of a warp
ROW = LANES + 1  # length of a row of shared memory, one more than the banks: columns are as fast as rows
MAX_WARPS = 2  # of a block in `forward`: halves the way of a small system, which waits for its longest thread
WIDE = MAX_WARPS * ROW  # the rows of two warps side by side
N_COMPONENTS = 16
TILE = 8  # Gaussians that the beta gradient treats at a time

# Shapes of shared memory must be constants, not expressions.
ROWS_TO_FIRST, ROWS_TO_SECOND = 2 * MAX_RADIAL, 3 * MAX_RADIAL  # R and R'; R, R' and R''
N_COTANGENTS = MAX_RADIAL * N_COMPONENTS


@cuda_device_jit
def _displacement(pair, i, geometry, positions, like):
    """Neighbor j and d = r_j - r_i + S @ cell of a pair, subtracted in float64."""
    j = geometry.neighbor[pair]
    k = geometry.shift[pair]
    dx = real(like, positions[j, 0] - positions[i, 0] + geometry.displacement[k, 0])
    dy = real(like, positions[j, 1] - positions[i, 1] + geometry.displacement[k, 1])
    dz = real(like, positions[j, 2] - positions[i, 2] + geometry.displacement[k, 2])
    return j, dx, dy, dz


@cuda_device_jit
def _basis(rho, b, f, df, d2f, radial):
    """B_b = kappa f phi_b, B'_b and B''_b."""
    g, dg, d2g = gaussian(rho - radial.centers[b], radial.scalars[1], radial.scalars[2])
    return f * g, df * g + f * dg, d2f * g + df * dg + df * dg + f * d2g


@cuda_device_jit
def _cutoff(rho, r_max):
    """f, f', f'' and zero beyond r_max, where a list with a skin has pairs too; keeps not-a-number."""
    if rho >= r_max:
        zero = real(r_max, 0.0)
        return zero, zero, zero
    return cutoff(rho, r_max)


@cuda_device_jit
def _add_row(sums, beta, b, value):
    """sums_s + beta_bs value for the eight (padded) channels."""
    return (
        sums[0] + beta[b, 0] * value, sums[1] + beta[b, 1] * value, sums[2] + beta[b, 2] * value,
        sums[3] + beta[b, 3] * value, sums[4] + beta[b, 4] * value, sums[5] + beta[b, 5] * value,
        sums[6] + beta[b, 6] * value, sums[7] + beta[b, 7] * value,
    )  # fmt: skip


@cuda_device_jit
def _store_radial(rows, first, lane, r):
    rows[first, lane], rows[first + 1, lane], rows[first + 2, lane], rows[first + 3, lane] = r[0], r[1], r[2], r[3]
    rows[first + 4, lane], rows[first + 5, lane], rows[first + 6, lane], rows[first + 7, lane] = r[4], r[5], r[6], r[7]


@cuda_device_jit
def _radial(order, rho, radial, beta, lane, rows):
    """R_s of a pair into rows 0 to 7, R'_s into 8 to 15, R''_s into 16 to 23, as far as `order` asks.

    beta (n_basis, 8) of the two species. Loops that matter are `while` loops: the compiler unrolls them, `range` hides
    the number of turns from it.
    """
    zero = real(rho, 0.0)
    r = dr = d2r = (zero, zero, zero, zero, zero, zero, zero, zero)
    f, df, d2f = _cutoff(rho, radial.scalars[0])
    b = 0
    while b < radial.centers.size:
        value, first, second = _basis(rho, b, f, df, d2f, radial)
        r = _add_row(r, beta, b, value)
        if order > 0:
            dr = _add_row(dr, beta, b, first)
        if order > 1:
            d2r = _add_row(d2r, beta, b, second)
        b += 1
    _store_radial(rows, 0, lane, r)
    if order > 0:
        _store_radial(rows, MAX_RADIAL, lane, dr)
    if order > 1:
        _store_radial(rows, 2 * MAX_RADIAL, lane, d2r)


@cuda_device_jit
def _store_powers(rows, lane, c):
    rows[0, lane], rows[1, lane], rows[2, lane], rows[3, lane] = c[0], c[1], c[2], c[3]
    rows[4, lane], rows[5, lane], rows[6, lane], rows[7, lane] = c[4], c[5], c[6], c[7]
    rows[8, lane], rows[9, lane], rows[10, lane], rows[11, lane] = c[8], c[9], c[10], c[11]
    rows[12, lane], rows[13, lane], rows[14, lane], rows[15, lane] = c[12], c[13], c[14], c[15]


@cuda_device_jit
def _store_sums(row, n_radial, c, half, m0, m1, m2, m3):
    """Write component c of the channels half, half + 2, half + 4, half + 6."""
    if half < n_radial:
        row[half, c] = m0
    if half + 2 < n_radial:
        row[half + 2, c] = m1
    if half + 4 < n_radial:
        row[half + 4, c] = m2
    if half + 6 < n_radial:
        row[half + 6, c] = m3


@cuda_jit
def forward(geometry, positions, radial, beta, moments):
    """Fill moments (n_members, n_atoms, n_radial, 16).

    Launch (n_atoms, n_members) blocks of 32 lanes and one or two warps.
    """
    rows = cuda.shared.array((MAX_RADIAL, WIDE), moments.dtype)
    powers = cuda.shared.array((N_COMPONENTS, WIDE), moments.dtype)
    lane, warp, n_warps = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
    first = warp * ROW  # this warp's part of every row
    c, half = lane % N_COMPONENTS, lane // N_COMPONENTS
    like = radial.scalars[0]
    m0 = m1 = m2 = m3 = zero = real(like, 0.0)
    nothing = (zero, zero, zero, zero, zero, zero, zero, zero)
    i, m = cuda.blockIdx.x, cuda.blockIdx.y
    end = geometry.row_start[i + 1]
    for start in range(geometry.row_start[i], end, LANES * n_warps):
        pair = start + warp * LANES + lane
        if pair < end:
            j, dx, dy, dz = _displacement(pair, i, geometry, positions, like)
            x, y, z, rho, _ = direction(dx, dy, dz)
            _radial(0, rho, radial, beta[m, geometry.species[i], geometry.species[j]], first + lane, rows)
            _store_powers(powers, first + lane, monomials(x, y, z))
        else:
            _store_radial(rows, 0, first + lane, nothing)
            _store_powers(powers, first + lane, nothing + nothing)
        cuda.syncthreads()
        p = 0
        while p < LANES:
            power = powers[c, first + p]
            m0 += rows[half, first + p] * power
            m1 += rows[half + 2, first + p] * power
            m2 += rows[half + 4, first + p] * power
            m3 += rows[half + 6, first + p] * power
            p += 1
        cuda.syncthreads()
    if warp > 0:
        rows[0, first + lane], rows[1, first + lane] = m0, m1
        rows[2, first + lane], rows[3, first + lane] = m2, m3
    cuda.syncthreads()
    if warp == 0:
        for w in range(1, n_warps):
            m0 += rows[0, w * ROW + lane]
            m1 += rows[1, w * ROW + lane]
            m2 += rows[2, w * ROW + lane]
            m3 += rows[3, w * ROW + lane]
        _store_sums(moments[m, i], moments.shape[2], c, half, m0, m1, m2, m3)


@cuda_device_jit
def _load_cotangent(lane, g_moments, cotangent):
    for e in range(lane, g_moments.shape[0] * N_COMPONENTS, LANES):
        cotangent[e] = g_moments[e // N_COMPONENTS, e % N_COMPONENTS]


@cuda_device_jit
def _coefficients(cotangent, s):
    """The sixteen cotangents of channel s."""
    o = s * N_COMPONENTS
    return (
        cotangent[o], cotangent[o + 1], cotangent[o + 2], cotangent[o + 3], cotangent[o + 4], cotangent[o + 5],
        cotangent[o + 6], cotangent[o + 7], cotangent[o + 8], cotangent[o + 9], cotangent[o + 10], cotangent[o + 11],
        cotangent[o + 12], cotangent[o + 13], cotangent[o + 14], cotangent[o + 15],
    )  # fmt: skip


@cuda_device_jit
def _add_outer(sums, p, d):
    """sums + p (x) d, row by row."""
    return (
        sums[0] + p[0] * d[0], sums[1] + p[0] * d[1], sums[2] + p[0] * d[2],
        sums[3] + p[1] * d[0], sums[4] + p[1] * d[1], sums[5] + p[1] * d[2],
        sums[6] + p[2] * d[0], sums[7] + p[2] * d[1], sums[8] + p[2] * d[2],
    )  # fmt: skip


@cuda_device_jit
def _store_strain(lane, sums, rows, strain):
    """Add up the nine sums of all lanes; `rows` is scratch."""
    cuda.syncthreads()
    for e in range(9):
        rows[e, lane] = sums[e]
    cuda.syncthreads()
    if lane < 9:
        total = rows[lane, 0]
        for p in range(1, LANES):
            total += rows[lane, p]
        strain[lane // 3, lane % 3] = total
    cuda.syncthreads()


@cuda_device_jit
def _fill_basis(order, rho, first, lane, radial, rows):
    """B of the Gaussians first <= b < first + 8 into rows 0 to 7, B' into 8 to 15 if `order` asks."""
    f, df, d2f = _cutoff(rho, radial.scalars[0])
    for b in range(first, min(first + TILE, radial.centers.size)):
        value, slope, _ = _basis(rho, b, f, df, d2f, radial)
        rows[b - first, lane] = value
        if order > 0:
            rows[b - first + TILE, lane] = slope


@cuda_device_jit
def _add_beta(order, lane, first, n_pairs, n_radial, n_basis, basis, amplitudes, species, g_beta):
    """g_beta[Z, b, s] += sum_p B_b amplitude_s (+ B'_b slope_s) over the pairs with neighbors of species Z.

    Every lane owns two of the 8 x 8 entries (b, s); rows 8 to 15 of basis and amplitudes hold B' and the slopes.
    """
    for e in range(lane, TILE * MAX_RADIAL, LANES):
        b, s = e // MAX_RADIAL, e % MAX_RADIAL
        if first + b < n_basis and s < n_radial:
            for k in range(g_beta.shape[0]):
                total = real(basis[0, 0], 0.0)
                for p in range(n_pairs):
                    if species[p] == k:
                        total += basis[b, p] * amplitudes[s, p]
                        if order > 0:
                            total += basis[b + TILE, p] * amplitudes[s + MAX_RADIAL, p]
                g_beta[k, first + b, s] += total


@cuda_device_jit
def _pair_force(n_radial, lane, x, y, z, inverse, cotangent, rows):
    """p = sum_s R'_s A_s u + (R_s / rho)(V_s - (u.V_s) u)."""
    zero = real(inverse, 0.0)
    sums = zero, zero, zero, zero
    s = 0
    while s < n_radial:
        sums = add_force_terms(sums, _coefficients(cotangent, s), x, y, z, rows[s, lane], rows[MAX_RADIAL + s, lane])
        s += 1
    return pair_force(sums, x, y, z, inverse)


@cuda_jit
def backward(geometry, positions, radial, beta, g_moments, wanted, g_positions, g_strain, g_beta):
    """Fill g_positions (n_members, n_pairs, 3) and g_strain (n_members, n_atoms, 3, 3), and add to g_beta.

    g_positions is p of every pair, g_strain the sum of p (x) d of every center, g_beta (n_blocks, n_species,
    n_species, n_basis, 8), of a single member.

    wanted = (positions, beta): what is not wanted is neither computed nor touched. Launch (n_blocks, n_members) blocks;
    those of a member share the centers in turn.
    """
    rows = cuda.shared.array((ROWS_TO_FIRST, ROW), g_moments.dtype)
    basis = cuda.shared.array((TILE, ROW), g_moments.dtype)
    cotangent = cuda.shared.array(N_COTANGENTS, g_moments.dtype)
    species = cuda.shared.array(LANES, geometry.species.dtype)
    want_positions, want_beta = wanted
    n_radial, n_basis = g_moments.shape[2], radial.centers.size
    lane, m = cuda.threadIdx.x, cuda.blockIdx.y
    like = radial.scalars[0]
    zero = real(like, 0.0)
    for i in range(cuda.blockIdx.x, g_moments.shape[1], cuda.gridDim.x):
        center = geometry.species[i]
        end = geometry.row_start[i + 1]
        strain = (zero, zero, zero, zero, zero, zero, zero, zero, zero)
        _load_cotangent(lane, g_moments[m, i], cotangent)
        cuda.syncthreads()
        for start in range(geometry.row_start[i], end, LANES):
            pair = start + lane
            x = y = z = rho = zero
            if pair < end:
                j, dx, dy, dz = _displacement(pair, i, geometry, positions, like)
                x, y, z, rho, inverse = direction(dx, dy, dz)
                species[lane] = geometry.species[j]
                if want_positions:
                    _radial(1, rho, radial, beta[m, center, geometry.species[j]], lane, rows)
                    p = _pair_force(n_radial, lane, x, y, z, inverse, cotangent, rows)
                    strain = _add_outer(strain, p, (dx, dy, dz))
                    g_positions[m, pair, 0], g_positions[m, pair, 1], g_positions[m, pair, 2] = p
            if want_beta:
                if pair < end:
                    for s in range(n_radial):
                        rows[s, lane] = polynomial(_coefficients(cotangent, s), x, y, z)
                for b in range(0, n_basis, TILE):
                    if pair < end:
                        _fill_basis(0, rho, b, lane, radial, basis)
                    cuda.syncthreads()
                    count = min(LANES, end - start)
                    _add_beta(0, lane, b, count, n_radial, n_basis, basis, rows, species,
                              g_beta[cuda.blockIdx.x, center])  # fmt: skip
                    cuda.syncthreads()
        if want_positions:
            _store_strain(lane, strain, rows, g_strain[m, i])
        cuda.syncthreads()


@cuda_device_jit
def _tangent(i, j, x, y, z, rho, inverse, geometry, gg_positions, strain):
    """w = v_j - v_i + S d, rhod = u.w, ud = (w - rhod u) / rho; and v_j - v_i."""
    vx = real(rho, gg_positions[j, 0] - gg_positions[i, 0])
    vy = real(rho, gg_positions[j, 1] - gg_positions[i, 1])
    vz = real(rho, gg_positions[j, 2] - gg_positions[i, 2])
    wx = vx + rho * (strain[0] * x + strain[1] * y + strain[2] * z)
    wy = vy + rho * (strain[3] * x + strain[4] * y + strain[5] * z)
    wz = vz + rho * (strain[6] * x + strain[7] * y + strain[8] * z)
    along = x * wx + y * wy + z * wz
    ud = inverse * (wx - along * x), inverse * (wy - along * y), inverse * (wz - along * z)
    return (wx, wy, wz), along, ud, (vx, vy, vz)


@cuda_device_jit
def _pair_force_along(n_radial, lane, x, y, z, inverse, w_pair, rho_dot, ud, cotangent, rows):
    """d<p, w>/dd and p (docs/method.md, section 7.4 without U)."""
    zero = real(inverse, 0.0)
    sums = zero, zero, zero, zero, zero, zero, zero, zero, zero
    s = 0
    while s < n_radial:
        sums = add_force_terms_along(
            sums, _coefficients(cotangent, s), x, y, z, ud[0], ud[1], ud[2], rho_dot,
            rows[s, lane], rows[MAX_RADIAL + s, lane], rows[2 * MAX_RADIAL + s, lane],
        )  # fmt: skip
        s += 1
    h = pair_force_along(sums, x, y, z, inverse, ud[0], ud[1], ud[2], rho_dot, w_pair[0], w_pair[1], w_pair[2])
    return h, pair_force(sums[:4], x, y, z, inverse)


@cuda_jit
def double_backward(
    geometry, positions, radial, beta, g_moments, gg_positions, gg_strain, wanted,
    gg_moments, h_positions, h_strain, h_beta,
):  # fmt: skip
    """Derivatives of <g_positions, gg_positions> + <g_strain, gg_strain>.

    Fills gg_moments (n_atoms, n_radial, 16), h_positions per pair and h_strain per center; adds to h_beta per block,
    as in `backward`. wanted = (positions, beta).
    """
    rows = cuda.shared.array((ROWS_TO_SECOND, ROW), g_moments.dtype)
    powers = cuda.shared.array((N_COMPONENTS, ROW), g_moments.dtype)
    tangents = cuda.shared.array((N_COMPONENTS, ROW), g_moments.dtype)
    speed = cuda.shared.array(LANES, g_moments.dtype)
    cotangent = cuda.shared.array(N_COTANGENTS, g_moments.dtype)
    species = cuda.shared.array(LANES, geometry.species.dtype)
    want_positions, want_beta = wanted
    n_radial, n_basis = g_moments.shape[1], radial.centers.size
    lane = cuda.threadIdx.x
    c, half = lane % N_COMPONENTS, lane // N_COMPONENTS
    like = radial.scalars[0]
    zero = real(like, 0.0)
    for i in range(cuda.blockIdx.x, g_moments.shape[0], cuda.gridDim.x):
        center, structure = geometry.species[i], geometry.structure[i]
        strain = (
            real(like, gg_strain[structure, 0, 0]), real(like, gg_strain[structure, 0, 1]),
            real(like, gg_strain[structure, 0, 2]), real(like, gg_strain[structure, 1, 0]),
            real(like, gg_strain[structure, 1, 1]), real(like, gg_strain[structure, 1, 2]),
            real(like, gg_strain[structure, 2, 0]), real(like, gg_strain[structure, 2, 1]),
            real(like, gg_strain[structure, 2, 2]),
        )  # fmt: skip
        end = geometry.row_start[i + 1]
        sums = (zero, zero, zero, zero, zero, zero, zero, zero, zero)
        m0 = m1 = m2 = m3 = zero
        _load_cotangent(lane, g_moments[i], cotangent)
        cuda.syncthreads()
        for start in range(geometry.row_start[i], end, LANES):
            pair = start + lane
            count = min(LANES, end - start)
            x = y = z = rho = along = zero
            ud = (zero, zero, zero)
            if pair < end:
                j, dx, dy, dz = _displacement(pair, i, geometry, positions, like)
                x, y, z, rho, inverse = direction(dx, dy, dz)
                species[lane] = geometry.species[j]
                w, along, ud, v = _tangent(i, j, x, y, z, rho, inverse, geometry, gg_positions, strain)
                speed[lane] = along
                _radial(2, rho, radial, beta[center, geometry.species[j]], lane, rows)
                _store_powers(powers, lane, monomials(x, y, z))
                _store_powers(tangents, lane, monomials_along(x, y, z, ud[0], ud[1], ud[2]))
                if want_positions:
                    h, p = _pair_force_along(n_radial, lane, x, y, z, inverse, w, along, ud, cotangent, rows)
                    sums = _add_outer(_add_outer(sums, h, (dx, dy, dz)), p, v)
                    h_positions[pair, 0] = h[0] + strain[0] * p[0] + strain[3] * p[1] + strain[6] * p[2]
                    h_positions[pair, 1] = h[1] + strain[1] * p[0] + strain[4] * p[1] + strain[7] * p[2]
                    h_positions[pair, 2] = h[2] + strain[2] * p[0] + strain[5] * p[1] + strain[8] * p[2]
            cuda.syncthreads()
            for k in range(count):
                power, tangent = speed[k] * powers[c, k], tangents[c, k]
                m0 += rows[MAX_RADIAL + half, k] * power + rows[half, k] * tangent
                m1 += rows[MAX_RADIAL + half + 2, k] * power + rows[half + 2, k] * tangent
                m2 += rows[MAX_RADIAL + half + 4, k] * power + rows[half + 4, k] * tangent
                m3 += rows[MAX_RADIAL + half + 6, k] * power + rows[half + 6, k] * tangent
            cuda.syncthreads()
            if want_beta:
                if pair < end:
                    for s in range(n_radial):
                        w_s = _coefficients(cotangent, s)
                        gx, gy, gz = polynomial_gradient(w_s, x, y, z)
                        powers[s, lane] = gx * ud[0] + gy * ud[1] + gz * ud[2]
                        powers[MAX_RADIAL + s, lane] = along * polynomial(w_s, x, y, z)
                for b in range(0, n_basis, TILE):
                    if pair < end:
                        _fill_basis(1, rho, b, lane, radial, tangents)
                    cuda.syncthreads()
                    _add_beta(1, lane, b, count, n_radial, n_basis, tangents, powers, species,
                              h_beta[cuda.blockIdx.x, center])  # fmt: skip
                    cuda.syncthreads()
        _store_sums(gg_moments[i], n_radial, c, half, m0, m1, m2, m3)
        if want_positions:
            _store_strain(lane, sums, rows, h_strain[i])
        cuda.syncthreads()
