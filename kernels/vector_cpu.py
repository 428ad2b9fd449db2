"""The few loops that the auto-vectorizer leaves scalar, written as LLVM vector code.

Products of basis rows with beta: the eight (padded) radial channels of one pair fill one vector. `beta_times_basis`
works on eight pairs at a time and transposes the result, because everything else wants the pairs of a channel side by
side; `add_outer` goes the other way.

Gaussians: `gaussian_rows` keeps a pair's distance and cutoff in registers while it goes through all Gaussians. As plain
loops, one along the pairs of each Gaussian, they are too short: most of the time is spent in setting them up.

Tiles of sixteen atoms: `add_dot` and `add_scaled` are too short for the vectorizer, which would have to check first
that the arrays do not overlap; `transpose_square` brings sixteen features of sixteen atoms in and out.

Each replaces a plain loop, which stands in its docstring as the definition, and runs three to six times as fast.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gmcore.kernels.formulas import LOG2_E

WIDTH = 8  # radial channels, padded
LANES = 16  # atoms of a tile


def _parts(context, builder, array_type, value):
    """Data pointer and byte strides of an array argument."""
    array = context.make_array(array_type)(context, builder, value)
    return array.data, cgutils.unpack_tuple(builder, array.strides)


def _element(builder, data, offset, kind):
    """Pointer to `kind` at a byte offset from `data`."""
    raw = builder.bitcast(data, ir.IntType(8).as_pointer())
    return builder.bitcast(builder.gep(raw, [offset]), kind.as_pointer())


def _load(builder, data, offset, kind, align):
    loaded = builder.load(_element(builder, data, offset, kind))
    loaded.align = align
    return loaded


def _transpose(builder, rows):
    """n vectors of n, a power of two, transposed by log2(n) rounds of interleaving rows i and i + n/2."""
    n = len(rows)
    half, index = n // 2, ir.VectorType(ir.IntType(32), n)
    low = ir.Constant(index, [k // 2 + n * (k % 2) for k in range(n)])
    high = ir.Constant(index, [half + k // 2 + n * (k % 2) for k in range(n)])
    for _ in range(n.bit_length() - 1):
        pairs = [(rows[i], rows[i + half]) for i in range(half)]
        rows = [builder.shuffle_vector(a, b, mask) for a, b in pairs for mask in (low, high)]
    return rows


@intrinsic
def beta_times_basis(typing_context, n_pairs, n_basis, basis, beta, species, out):
    """Fill out (8, capacity) for n_pairs, a multiple of 8.

    for p in range(n_pairs):
        for s in range(8):
            out[s, p] = sum(beta[species[p], b, s] * basis[b, p] for b in range(n_basis))

    basis and out may be any rows with contiguous pairs; beta (n_species, n_basis, 8) is C-contiguous.
    """
    signature = types.void(types.intp, types.intp, basis, beta, species, out)

    def code(context, builder, signature, arguments):
        n_pairs, n_basis, *arrays = arguments
        scalar = context.get_value_type(basis.dtype)
        vector, intp = ir.VectorType(scalar, WIDTH), n_pairs.type
        size = context.get_abi_sizeof(scalar)
        (basis_data, (basis_row, _)), (beta_data, (beta_species, beta_row, _)) = (
            _parts(context, builder, kind, value) for kind, value in zip((basis, beta), arrays[:2])
        )
        species_data, _ = _parts(context, builder, species, arrays[2])
        out_data, (out_row, _) = _parts(context, builder, out, arrays[3])
        constant = lambda number: ir.Constant(intp, number)  # noqa: E731
        with cgutils.for_range_slice(builder, constant(0), n_pairs, constant(WIDTH)) as (first, _):
            offset = builder.mul(first, constant(size))
            rows = []
            for k in range(WIDTH):
                pair = builder.add(first, constant(k))
                kind = _load(builder, species_data, builder.mul(pair, constant(4)), ir.IntType(32), 4)
                rows.append(builder.mul(builder.zext(kind, intp), beta_species))
            sums = [cgutils.alloca_once(builder, vector) for _ in range(WIDTH)]
            for k in range(WIDTH):
                builder.store(ir.Constant(vector, [0.0] * WIDTH), sums[k])
            with cgutils.for_range(builder, n_basis) as loop:
                basis_offset = builder.add(offset, builder.mul(loop.index, basis_row))
                beta_offset = builder.mul(loop.index, beta_row)
                for k in range(WIDTH):
                    value = _load(builder, basis_data, builder.add(basis_offset, constant(k * size)), scalar, size)
                    weights = _load(builder, beta_data, builder.add(rows[k], beta_offset), vector, size)
                    term = builder.fmul(_spread(builder, value, WIDTH), weights, flags=("contract",))
                    builder.store(builder.fadd(builder.load(sums[k]), term, flags=("contract",)), sums[k])
            for s, row in enumerate(_transpose(builder, [builder.load(total) for total in sums])):
                place = builder.add(offset, builder.mul(constant(s), out_row))
                builder.store(row, _element(builder, out_data, place, vector)).align = size
        return context.get_dummy_value()

    return signature, code


@intrinsic
def add_outer(typing_context, n_pairs, n_basis, basis, amplitudes, species, g_beta):
    """Add to g_beta (n_species, n_basis, 8) over n_pairs, a multiple of 8.

    for p in range(n_pairs):
        for b in range(n_basis):
            for s in range(8):
                g_beta[species[p], b, s] += basis[b, p] * amplitudes[s, p]

    basis and amplitudes may be any rows with contiguous pairs; g_beta is C-contiguous in its last axis.
    """
    signature = types.void(types.intp, types.intp, basis, amplitudes, species, g_beta)

    def code(context, builder, signature, arguments):
        n_pairs, n_basis, *arrays = arguments
        scalar = context.get_value_type(basis.dtype)
        vector, intp = ir.VectorType(scalar, WIDTH), n_pairs.type
        size = context.get_abi_sizeof(scalar)
        basis_data, (basis_row, _) = _parts(context, builder, basis, arrays[0])
        amplitude_data, (amplitude_row, _) = _parts(context, builder, amplitudes, arrays[1])
        species_data, _ = _parts(context, builder, species, arrays[2])
        beta_data, (beta_species, beta_row, _) = _parts(context, builder, g_beta, arrays[3])
        constant = lambda number: ir.Constant(intp, number)  # noqa: E731
        with cgutils.for_range_slice(builder, constant(0), n_pairs, constant(WIDTH)) as (first, _):
            offset = builder.mul(first, constant(size))
            rows = [
                _load(
                    builder, amplitude_data, builder.add(offset, builder.mul(constant(s), amplitude_row)), vector, size
                )
                for s in range(WIDTH)
            ]
            rows = _transpose(builder, rows)
            for k in range(WIDTH):
                pair = builder.add(first, constant(k))
                kind = _load(builder, species_data, builder.mul(pair, constant(4)), ir.IntType(32), 4)
                start = builder.mul(builder.zext(kind, intp), beta_species)
                with cgutils.for_range(builder, n_basis) as loop:
                    basis_offset = builder.add(offset, builder.mul(loop.index, basis_row))
                    value = _load(builder, basis_data, builder.add(basis_offset, constant(k * size)), scalar, size)
                    place = _element(builder, beta_data, builder.add(start, builder.mul(loop.index, beta_row)), vector)
                    term = builder.fmul(_spread(builder, value, WIDTH), rows[k], flags=("contract",))
                    total = builder.load(place)
                    total.align = size
                    builder.store(builder.fadd(total, term, flags=("contract",)), place).align = size
        return context.get_dummy_value()

    return signature, code


class Tile:
    """Code for the elements, sixteen lanes each, of a flat contiguous tile from number `start` on."""

    def __init__(self, context, builder, kind, value, start):
        self._builder, self._start = builder, start
        scalar = context.get_value_type(kind.dtype)
        self._size = context.get_abi_sizeof(scalar)
        self._data, _ = _parts(context, builder, kind, value)
        self.vector = ir.VectorType(scalar, LANES)

    def _place(self, component, moved):
        index = self._builder.add(self._start, ir.Constant(self._start.type, LANES * component))
        if moved is not None:
            index = self._builder.add(index, moved)
        return _element(
            self._builder, self._data, self._builder.mul(index, ir.Constant(index.type, self._size)), self.vector
        )

    def load(self, n, moved=None):
        """n elements one after another, or those `moved` numbers further on."""
        loaded = [self._builder.load(self._place(c, moved)) for c in range(n)]
        for vector in loaded:
            vector.align = self._size
        return loaded

    def store(self, vectors, moved=None):
        """Write elements one after another, or `moved` numbers further on."""
        for c, vector in enumerate(vectors):
            self._builder.store(vector, self._place(c, moved)).align = self._size


def _spread(builder, scalar, n=LANES):
    """A number in all lanes."""
    vector = ir.VectorType(scalar.type, n)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)


def multiply_add(builder, a, b, c):
    """a b + c, fused."""
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _exp(builder, x):
    """e^x of a vector, by the steps of `formulas.exp`."""
    vector, single = x.type, isinstance(x.type.element, ir.FloatType)
    n = vector.count
    integers = ir.VectorType(ir.IntType(32 if single else 64), n)
    round_to = np.float32 if single else np.float64

    def constant(value):
        return ir.Constant(vector, [float(round_to(value))] * n)

    def whole(value):
        return ir.Constant(integers, [value] * n)

    lowest, degree = (constant(-87.0), 7) if single else (constant(-708.0), 13)
    high, low = (0.693359375, -2.12194440e-4) if single else (6.93145751953125e-1, 1.42860682030941723212e-6)
    y = builder.select(builder.fcmp_ordered(">", x, lowest), x, lowest)
    floor = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector]), f"llvm.floor.v{n}f{32 if single else 64}"
    )
    power = builder.call(floor, [multiply_add(builder, y, constant(LOG2_E), constant(0.5))])
    rest = builder.fsub(builder.fsub(y, builder.fmul(power, constant(high))), builder.fmul(power, constant(low)))
    series = constant(1.0 / math.factorial(degree))
    for k in range(degree - 1, -1, -1):
        series = multiply_add(builder, rest, series, constant(1.0 / math.factorial(k)))
    bias, mantissa = (127, 23) if single else (1023, 52)
    exponent = builder.shl(builder.add(builder.fptosi(power, integers), whole(bias)), whole(mantissa))
    value = builder.fmul(series, builder.bitcast(exponent, vector))
    return builder.select(builder.fcmp_ordered(">", x, lowest), value, constant(0.0))


def _gaussian_rows(order):
    @intrinsic
    def fill(typing_context, n_pairs, distance, cutoff, scalars, centers, out):
        """Fill the rows of B_b = f phi_b and its derivatives up to `order`; n_pairs is a multiple of 16.

        for p in range(n_pairs):
            for b in range(centers.size):
                g, dg, d2g = gaussian(distance[p] - centers[b], gamma, height)
                out[b, p] = f[p] * g
                out[n_basis + b, p] = df[p] * g + f[p] * dg
                out[2 * n_basis + b, p] = d2f[p] * g + 2 * df[p] * dg + f[p] * d2g

        cutoff has the rows f, df, d2f; scalars are (r_max, gamma, height). The pairs of a row are contiguous.
        """
        signature = types.void(types.intp, distance, cutoff, scalars, centers, out)

        def code(context, builder, signature, arguments):
            n_pairs, *arrays = arguments
            scalar, intp = context.get_value_type(distance.dtype), n_pairs.type
            size, vector = context.get_abi_sizeof(scalar), ir.VectorType(scalar, LANES)
            parts = [_parts(context, builder, *x) for x in zip((distance, cutoff, scalars, centers, out), arrays)]
            (rho_data, _), (cutoff_data, (cutoff_row, _)), (scalar_data, _), (center_data, _), (out_data, (row, _)) = (
                parts
            )
            n_basis = cgutils.unpack_tuple(builder, context.make_array(centers)(context, builder, arrays[3]).shape)[0]
            number = lambda k: ir.Constant(intp, k)  # noqa: E731
            times = lambda a, b: builder.fmul(a, b, flags=("contract",))  # noqa: E731
            gamma, height = (
                _spread(builder, _load(builder, scalar_data, number(k * size), scalar, size)) for k in (1, 2)
            )
            minus_gamma = builder.fsub(ir.Constant(vector, [0.0] * LANES), gamma)
            minus_two_gamma = builder.fadd(minus_gamma, minus_gamma)
            set_length = builder.mul(n_basis, row)
            with cgutils.for_range_slice(builder, number(0), n_pairs, number(LANES)) as (first, _):
                offset = builder.mul(first, number(size))
                rho = _load(builder, rho_data, offset, vector, size)
                f, df, d2f = (
                    _load(builder, cutoff_data, builder.add(offset, builder.mul(cutoff_row, number(k))), vector, size)
                    for k in range(3)
                )
                with cgutils.for_range(builder, n_basis) as loop:
                    center = _load(builder, center_data, builder.mul(loop.index, number(size)), scalar, size)
                    x = builder.fsub(rho, _spread(builder, center))
                    g = times(height, _exp(builder, times(times(minus_gamma, x), x)))
                    slope = times(minus_two_gamma, x)
                    dg = times(slope, g)
                    d2g = times(multiply_add(builder, slope, slope, minus_two_gamma), g)
                    values = [
                        times(f, g),
                        multiply_add(builder, df, g, times(f, dg)),
                        multiply_add(builder, d2f, g, multiply_add(builder, builder.fadd(df, df), dg, times(f, d2g))),
                    ]
                    place = builder.add(offset, builder.mul(loop.index, row))
                    for k, value in enumerate(values[: order + 1]):
                        target = builder.add(place, builder.mul(set_length, number(k)))
                        builder.store(value, _element(builder, out_data, target, vector)).align = size
            return context.get_dummy_value()

        return signature, code

    return fill


gaussian_values, gaussian_slopes, gaussian_curvatures = map(_gaussian_rows, range(3))


@intrinsic
def add_dot(typing_context, n, g, f, q, i, t, o):
    """g[f] += sum_c q[i + 16 c] t[o + 16 c] over n components, sixteen lanes each; flat contiguous tiles."""
    signature = types.void(types.intp, g, types.intp, q, types.intp, t, types.intp)

    def code(context, builder, signature, arguments):
        n, g_value, f, q_value, i, t_value, o = arguments
        sums, left, right = (
            Tile(context, builder, *part) for part in ((g, g_value, f), (q, q_value, i), (t, t_value, o))
        )
        total = cgutils.alloca_once_value(builder, sums.load(1)[0])
        with cgutils.for_range(builder, n) as loop:
            moved = builder.mul(loop.index, ir.Constant(n.type, LANES))
            (a,), (b,) = left.load(1, moved), right.load(1, moved)
            builder.store(multiply_add(builder, a, b, builder.load(total)), total)
        sums.store([builder.load(total)])
        return context.get_dummy_value()

    return signature, code


@intrinsic
def add_scaled(typing_context, n, t, o, g, f, q, i):
    """t[o + 16 c] += g[f] q[i + 16 c] for n components, sixteen lanes each; flat contiguous tiles."""
    signature = types.void(types.intp, t, types.intp, g, types.intp, q, types.intp)

    def code(context, builder, signature, arguments):
        n, t_value, o, g_value, f, q_value, i = arguments
        sums, factors, values = (
            Tile(context, builder, *part) for part in ((t, t_value, o), (g, g_value, f), (q, q_value, i))
        )
        (factor,) = factors.load(1)
        with cgutils.for_range(builder, n) as loop:
            moved = builder.mul(loop.index, ir.Constant(n.type, LANES))
            (a,), (b,) = values.load(1, moved), sums.load(1, moved)
            sums.store([multiply_add(builder, factor, a, b)], moved)
        return context.get_dummy_value()

    return signature, code


@intrinsic
def transpose_square(typing_context, target, target_start, target_row, source, source_start, source_row):
    """Transpose sixteen rows of sixteen numbers; starts and distances of the rows count elements of flat arrays.

    for i in range(16):
        for k in range(16):
            target[target_start + i target_row + k] = source[source_start + k source_row + i]
    """
    signature = types.void(target, types.intp, types.intp, source, types.intp, types.intp)

    def code(context, builder, signature, arguments):
        target_value, target_start, target_row, source_value, source_start, source_row = arguments
        into = Tile(context, builder, target, target_value, target_start)
        out_of = Tile(context, builder, source, source_value, source_start)
        numbers = [ir.Constant(source_row.type, k) for k in range(LANES)]
        rows = [row for k in numbers for row in out_of.load(1, builder.mul(source_row, k))]
        for k, row in zip(numbers, _transpose(builder, rows)):
            into.store([row], builder.mul(target_row, k))
        return context.get_dummy_value()

    return signature, code
