"""The trilinear forms behind the invariants, as scalar formulas on packed symmetric tensors.

Packed orders: vector x y z; matrix xx xy xz yy yz zz; cubic tensor xxx xxy xxz xyy xyz xzz yyy yyz yzz zzz.

    form          value                          used by block
    u.C.v         vectors u, v, matrix C         5: M1_r^T M2_t M1_s
    tr(A B C)     matrices                       4: tr(M2_r M2_s M2_t)
    A:B:C         A_ijk B_ijl C_kl               6: M3_r M3_s M2_t
    A:B.v         A_ijk B_ij v_k                 7: M3_r M2_s M1_t

Every function below is the derivative of one form with respect to the packed components of one argument, so that
form = sum over packed components of derivative x argument, and the same functions serve value, gradient and the
second derivative. Off-diagonal components count as often as they occur in the full tensor.

Where they enter: docs/method.md, sections 3, 6.2 and 7.2.
"""

from gmcore.kernels.compile import jit


@jit
def outer(u, v):
    """d(u.C.v)/dC."""
    return (
        u[0] * v[0],
        u[0] * v[1] + u[1] * v[0],
        u[0] * v[2] + u[2] * v[0],
        u[1] * v[1],
        u[1] * v[2] + u[2] * v[1],
        u[2] * v[2],
    )


@jit
def matrix_vector(c, v):
    """d(u.C.v)/du."""
    return (
        c[0] * v[0] + c[1] * v[1] + c[2] * v[2],
        c[1] * v[0] + c[3] * v[1] + c[4] * v[2],
        c[2] * v[0] + c[4] * v[1] + c[5] * v[2],
    )


@jit
def product(a, b):
    """d tr(A B C)/dC; the form is symmetric in its three arguments."""
    return (
        a[0] * b[0] + a[1] * b[1] + a[2] * b[2],
        a[0] * b[1] + a[1] * b[3] + a[2] * b[4] + b[0] * a[1] + b[1] * a[3] + b[2] * a[4],
        a[0] * b[2] + a[1] * b[4] + a[2] * b[5] + b[0] * a[2] + b[1] * a[4] + b[2] * a[5],
        a[1] * b[1] + a[3] * b[3] + a[4] * b[4],
        a[1] * b[2] + a[3] * b[4] + a[4] * b[5] + b[1] * a[2] + b[3] * a[4] + b[4] * a[5],
        a[2] * b[2] + a[4] * b[4] + a[5] * b[5],
    )


@jit
def _slice_product(a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5):
    """Full contraction of two packed matrices."""
    off = a1 * b1 + a2 * b2 + a4 * b4
    return a0 * b0 + a3 * b3 + a5 * b5 + off + off


@jit
def cubic_product(a, b):
    """d(A:B:C)/dC."""
    # the slices A_ij,k for fixed k are the packed matrices ax, ay, az
    ax = (a[0], a[1], a[2], a[3], a[4], a[5])
    ay = (a[1], a[3], a[4], a[6], a[7], a[8])
    az = (a[2], a[4], a[5], a[7], a[8], a[9])
    bx = (b[0], b[1], b[2], b[3], b[4], b[5])
    by = (b[1], b[3], b[4], b[6], b[7], b[8])
    bz = (b[2], b[4], b[5], b[7], b[8], b[9])
    return (
        _slice_product(*ax, *bx),
        _slice_product(*ax, *by) + _slice_product(*ay, *bx),
        _slice_product(*ax, *bz) + _slice_product(*az, *bx),
        _slice_product(*ay, *by),
        _slice_product(*ay, *bz) + _slice_product(*az, *by),
        _slice_product(*az, *bz),
    )


@jit
def _pack_cubic(tx, ty, tz):
    """Packed derivative from T_ij,k, symmetric in ij, given as slices k = x, y, z: sum over distinct permutations."""
    xyz = ty[2] + tz[1] + tx[4]
    return (
        tx[0],
        ty[0] + tx[1] + tx[1],
        tz[0] + tx[2] + tx[2],
        tx[3] + ty[1] + ty[1],
        xyz + xyz,
        tx[5] + tz[2] + tz[2],
        ty[3],
        tz[3] + ty[4] + ty[4],
        ty[5] + tz[4] + tz[4],
        tz[5],
    )


@jit
def _mix(bx, by, bz, x, y, z):
    """x bx + y by + z bz for packed matrices."""
    return (
        x * bx[0] + y * by[0] + z * bz[0],
        x * bx[1] + y * by[1] + z * bz[1],
        x * bx[2] + y * by[2] + z * bz[2],
        x * bx[3] + y * by[3] + z * bz[3],
        x * bx[4] + y * by[4] + z * bz[4],
        x * bx[5] + y * by[5] + z * bz[5],
    )


@jit
def cubic_matrix(b, c):
    """d(A:B:C)/dA, the same for dB with A in the place of B."""
    bx = (b[0], b[1], b[2], b[3], b[4], b[5])
    by = (b[1], b[3], b[4], b[6], b[7], b[8])
    bz = (b[2], b[4], b[5], b[7], b[8], b[9])
    return _pack_cubic(
        _mix(bx, by, bz, c[0], c[1], c[2]), _mix(bx, by, bz, c[1], c[3], c[4]), _mix(bx, by, bz, c[2], c[4], c[5])
    )


@jit
def cubic_on_matrix(a, b):
    """d(A:B.v)/dv."""
    return (
        _slice_product(a[0], a[1], a[2], a[3], a[4], a[5], b[0], b[1], b[2], b[3], b[4], b[5]),
        _slice_product(a[1], a[3], a[4], a[6], a[7], a[8], b[0], b[1], b[2], b[3], b[4], b[5]),
        _slice_product(a[2], a[4], a[5], a[7], a[8], a[9], b[0], b[1], b[2], b[3], b[4], b[5]),
    )


@jit
def cubic_on_vector(a, v):
    """d(A:B.v)/dB."""
    xy = a[1] * v[0] + a[3] * v[1] + a[4] * v[2]
    xz = a[2] * v[0] + a[4] * v[1] + a[5] * v[2]
    yz = a[4] * v[0] + a[7] * v[1] + a[8] * v[2]
    return (
        a[0] * v[0] + a[1] * v[1] + a[2] * v[2],
        xy + xy,
        xz + xz,
        a[3] * v[0] + a[6] * v[1] + a[7] * v[2],
        yz + yz,
        a[5] * v[0] + a[8] * v[1] + a[9] * v[2],
    )


@jit
def matrix_times_vector(b, v):
    """d(A:B.v)/dA."""
    x, y, z = v[0], v[1], v[2]
    return _pack_cubic(
        (x * b[0], x * b[1], x * b[2], x * b[3], x * b[4], x * b[5]),
        (y * b[0], y * b[1], y * b[2], y * b[3], y * b[4], y * b[5]),
        (z * b[0], z * b[1], z * b[2], z * b[3], z * b[4], z * b[5]),
    )
