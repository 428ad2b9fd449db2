"""Scalar formulas of the descriptor, written once for every machine; the loops live in the `_cpu` and `_cuda` files.

Formulas: docs/method.md, sections 1, 2 and 6.3; symbols are those of P, section 2.1: rho distance, f cutoff function,
phi_b normalized Gaussian.

The numbers of a loop all have one type: a literal such as `2.0` is 64-bit to Numba and would make float32 loops compute
in float64, so constants are cast through `real(x, value)`, which the compiler folds.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from gmcore.kernels.compile import jit

LOG2_E = math.log2(math.e)
COSINE = tuple((-1) ** k / math.factorial(2 * k) for k in range(12))  # Taylor coefficients in h^2
SINE = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(12))


def real(like, value):
    """`value` in the floating-point type of `like`."""
    return type(like)(value)


@overload(real, jit_options={"forceinline": True}, inline="always")
def _real(like, value):
    cast = np.float32 if like == types.float32 else np.float64

    def implementation(like, value):
        return cast(value)

    return implementation


@intrinsic
def _power_of_two(typing_context, exponent):
    """2^exponent for an integer of the width of the wanted float, by writing its exponent bits."""
    result = types.float32 if exponent == types.int32 else types.float64
    bias, mantissa = (127, 23) if exponent == types.int32 else (1023, 52)

    def code(context, builder, signature, arguments):
        width = context.get_value_type(exponent)
        biased = builder.add(arguments[0], ir.Constant(width, bias))
        return builder.bitcast(builder.shl(biased, ir.Constant(width, mantissa)), context.get_value_type(result))

    return result(exponent), code


def exp(x):
    """e^x for finite x <= 0, zero below the smallest normal number. Unlike the library call it vectorizes."""
    return math.exp(x)


@overload(exp, jit_options={"forceinline": True, "fastmath": {"contract"}})
def _exp(x):
    if x == types.float32:
        cast, integer, lowest, degree = np.float32, np.int32, np.float32(-87.0), 7
        high, low = np.float32(0.693359375), np.float32(-2.12194440e-4)
    else:
        cast, integer, lowest, degree = np.float64, np.int64, np.float64(-708.0), 13
        high, low = np.float64(6.93145751953125e-1), np.float64(1.42860682030941723212e-6)
    log2_e, half = cast(LOG2_E), cast(0.5)
    c = [cast(1.0 / math.factorial(k)) for k in range(14)]
    c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = c
    zero = cast(0.0)

    def implementation(x):
        y = max(x, lowest)
        n = math.floor(y * log2_e + half)
        r = (y - n * high) - n * low
        if degree == 7:
            p = c7
        else:
            p = c7 + r * (c8 + r * (c9 + r * (c10 + r * (c11 + r * (c12 + r * c13)))))
        p = c0 + r * (c1 + r * (c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * p))))))
        value = p * _power_of_two(integer(n))
        return value if x > lowest else zero

    return implementation


@jit
def direction(dx, dy, dz):
    """Unit vector, length and inverse length of a vector that is not zero."""
    squared = dx * dx + dy * dy + dz * dz
    rho = math.sqrt(squared)
    inverse = real(rho, 1.0) / rho
    return inverse * dx, inverse * dy, inverse * dz, rho, inverse


@jit
def cosine_sine(h):
    """cos(h) and sin(h) for 0 <= h <= pi/2 by their Taylor series, to rounding in either precision; vectorizes."""
    x = h * h
    c = real(h, COSINE[11])
    s = real(h, SINE[11])
    for k in range(10, -1, -1):  # unrolled by the compiler
        c = real(h, COSINE[k]) + x * c
        s = real(h, SINE[k]) + x * s
    return c, h * s


@jit
def cutoff(rho, r_max):
    """f = cos^2(pi rho / 2 r_c) = (1 + cos(pi rho / r_c)) / 2 with f' and f'', for 0 <= rho <= r_c."""
    k = real(rho, math.pi / 2) / r_max
    c, s = cosine_sine(k * rho)
    sc = s * c
    difference = c * c - s * s
    return c * c, -k * (sc + sc), -k * k * (difference + difference)


@jit
def gaussian(x, gamma, height):
    """height exp(-gamma x^2) with its first two derivatives in x."""
    value = height * exp(-gamma * x * x)
    slope = -(gamma + gamma) * x
    return value, slope * value, (slope * slope - (gamma + gamma)) * value


@jit
def monomials(x, y, z):
    """The 16 independent components of u^(x)L, L = 0..3: 1; x y z; xx xy xz yy yz; xxx xxy xxz xyy xyz yyy yyz.

    Those with two z follow from |u| = 1 (zz = 1 - xx - yy and so on: docs/method.md, section 2).
    """
    xx = x * x
    xy = x * y
    yy = y * y
    one = real(x, 1.0)
    return one, x, y, z, xx, xy, x * z, yy, y * z, xx * x, xx * y, xx * z, xy * y, xy * z, yy * y, yy * z


@jit
def monomials_along(x, y, z, a, b, c):
    """Directional derivative of the monomials at (x, y, z) along (a, b, c)."""
    xx = x * x
    xy = x * y
    yy = y * y
    xa = x * a
    yb = y * b
    dxx = xa + xa
    dxy = x * b + y * a
    dyy = yb + yb
    return (
        real(x, 0.0), a, b, c,
        dxx, dxy, x * c + z * a, dyy, y * c + z * b,
        dxx * x + xx * a, dxx * y + xx * b, dxx * z + xx * c, dxy * y + xy * b, dxy * z + xy * c,
        dyy * y + yy * b, dyy * z + yy * c,
    )  # fmt: skip


@jit
def polynomial(w, x, y, z):
    """A(u) = sum_c w_c monomial_c(u)."""
    xx = w[4] * x + w[5] * y + w[6] * z + w[1]
    yy = w[7] * y + w[8] * z + w[2]
    cubic_x = x * (w[9] * x + w[10] * y + w[11] * z) + y * (w[12] * y + w[13] * z)
    cubic_y = y * (w[14] * y + w[15] * z)
    return w[0] + w[3] * z + x * (xx + cubic_x) + y * (yy + cubic_y)


@jit
def polynomial_gradient(w, x, y, z):
    """V = dA/du with the three components of u taken as independent."""
    x2 = x + x
    y2 = y + y
    xx = x * x
    xy = x * y
    yy = y * y
    triple_xx = xx + xx + xx
    triple_yy = yy + yy + yy
    gx = (
        w[1] + x2 * w[4] + y * w[5] + z * w[6]
        + triple_xx * w[9] + x2 * (y * w[10] + z * w[11]) + yy * w[12] + y * z * w[13]
    )  # fmt: skip
    gy = (
        w[2] + x * w[5] + y2 * w[7] + z * w[8]
        + xx * w[10] + x2 * y * w[12] + x * z * w[13] + triple_yy * w[14] + y2 * z * w[15]
    )  # fmt: skip
    gz = w[3] + x * w[6] + y * w[8] + xx * w[11] + xy * w[13] + yy * w[15]
    return gx, gy, gz


@jit
def polynomial_hessian_along(w, x, y, z, a, b, c):
    """(d2A/du du) . (a, b, c)."""
    x2 = x + x
    y2 = y + y
    hxx = w[4] + w[4] + (x2 + x2 + x2) * w[9] + (y2 * w[10] + (z + z) * w[11])
    hxy = w[5] + x2 * w[10] + y2 * w[12] + z * w[13]
    hxz = w[6] + x2 * w[11] + y * w[13]
    hyy = w[7] + w[7] + x2 * w[12] + (y2 + y2 + y2) * w[14] + (z + z) * w[15]
    hyz = w[8] + x * w[13] + y2 * w[15]
    return hxx * a + hxy * b + hxz * c, hxy * a + hyy * b + hyz * c, hxz * a + hyz * b


@jit
def add_force_terms(sums, w, x, y, z, r, dr):
    """(t, q) with the share of one radial channel added: t = sum_s R'_s A_s and q = sum_s R_s V_s, of a pair."""
    gx, gy, gz = polynomial_gradient(w, x, y, z)
    return (
        sums[0] + dr * polynomial(w, x, y, z),
        sums[1] + r * gx, sums[2] + r * gy, sums[3] + r * gz,
    )  # fmt: skip


@jit
def pair_force(sums, x, y, z, inverse):
    """p = dE/dd = q / rho + (t - u.q / rho) u, from the sums (t, q) over the channels (`add_force_terms`)."""
    t, qx, qy, qz = sums
    radial = t - inverse * (x * qx + y * qy + z * qz)
    return inverse * qx + radial * x, inverse * qy + radial * y, inverse * qz + radial * z


@jit
def add_force_terms_along(sums, w, x, y, z, ax, ay, az, rho_dot, r, dr, d2r):
    """(t, q, dt, cross, b) with the share of one radial channel added, of a pair that moves by (rho_dot, ud = a).

    dt = sum_s R''_s A_s, cross = sum_s R'_s V_s.ud, b = sum_s R_s H_s ud + R'_s rho_dot V_s with H_s = dV_s/du.
    """
    value = polynomial(w, x, y, z)
    gx, gy, gz = polynomial_gradient(w, x, y, z)
    hx, hy, hz = polynomial_hessian_along(w, x, y, z, ax, ay, az)
    moving = dr * rho_dot
    return (
        sums[0] + dr * value,
        sums[1] + r * gx, sums[2] + r * gy, sums[3] + r * gz,
        sums[4] + d2r * value,
        sums[5] + dr * (gx * ax + gy * ay + gz * az),
        sums[6] + (r * hx + moving * gx), sums[7] + (r * hy + moving * gy), sums[8] + (r * hz + moving * gz),
    )  # fmt: skip


@jit
def pair_force_along(sums, x, y, z, inverse, ax, ay, az, rho_dot, wx, wy, wz):
    """d<p, w>/dd at fixed w, with <p, w> = t rho_dot + q.ud, from the sums of `add_force_terms_along`."""
    t, qx, qy, qz, dt, cross, bx, by, bz = sums
    radial = t - inverse * (x * qx + y * qy + z * qz)
    rho_bar = cross + dt * rho_dot - inverse * (qx * ax + qy * ay + qz * az)
    lost = inverse * rho_dot
    vx = bx - lost * qx + radial * wx
    vy = by - lost * qy + radial * wy
    vz = bz - lost * qz + radial * wz
    along = rho_bar - inverse * (x * vx + y * vy + z * vz)
    return inverse * vx + along * x, inverse * vy + along * y, inverse * vz + along * z
