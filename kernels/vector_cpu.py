"""The few loops that the auto-vectorizer leaves scalar, written as LLVM vector code.

Products of basis rows with beta: the eight (padded) radial channels of one pair fill one vector. `beta_times_basis`
works on eight pairs at a time and transposes the result, because everything else wants the pairs of a channel side by
side; `add_outer` goes the other way.

Products of tiles: `add_dot` and `add_scaled` are too short for the vectorizer, which would have to check first that
the arrays do not overlap.

Each replaces a plain loop, which stands in its docstring as the definition, and runs three to six times as fast.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

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


def _broadcast(builder, scalar, vector):
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)


def _transpose(builder, rows):
    """Eight vectors of eight, transposed by three rounds of interleaving rows i and i + 4."""
    index = ir.VectorType(ir.IntType(32), WIDTH)
    low = ir.Constant(index, [k // 2 + WIDTH * (k % 2) for k in range(WIDTH)])
    high = ir.Constant(index, [4 + k // 2 + WIDTH * (k % 2) for k in range(WIDTH)])
    for _ in range(3):
        pairs = [(rows[i], rows[i + 4]) for i in range(4)]
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
                    term = builder.fmul(_broadcast(builder, value, vector), weights, flags=("contract",))
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
                    term = builder.fmul(_broadcast(builder, value, vector), rows[k], flags=("contract",))
                    total = builder.load(place)
                    total.align = size
                    builder.store(builder.fadd(total, term, flags=("contract",)), place).align = size
        return context.get_dummy_value()

    return signature, code


def _lanes(context, builder, kind, value, index):
    """Pointer to lane 0 of element `index` of a flat tile, and the vector type of sixteen lanes."""
    scalar = context.get_value_type(kind.dtype)
    size = context.get_abi_sizeof(scalar)
    data, _ = _parts(context, builder, kind, value)
    vector = ir.VectorType(scalar, LANES)

    def place(component):
        offset = builder.add(index, builder.mul(component, ir.Constant(index.type, LANES)))
        return _element(builder, data, builder.mul(offset, ir.Constant(index.type, size)), vector)

    def load(component):
        loaded = builder.load(place(component))
        loaded.align = size
        return loaded

    def store(component, result):
        builder.store(result, place(component)).align = size

    return vector, load, store


@intrinsic
def add_dot(typing_context, n, g, f, q, i, t, o):
    """g[f] += sum_c q[i + 16 c] t[o + 16 c] over n components, sixteen lanes each; flat contiguous tiles."""
    signature = types.void(types.intp, g, types.intp, q, types.intp, t, types.intp)

    def code(context, builder, signature, arguments):
        n, g_value, f, q_value, i, t_value, o = arguments
        _vector, load_g, store_g = _lanes(context, builder, g, g_value, f)
        _, load_q, _ = _lanes(context, builder, q, q_value, i)
        _, load_t, _ = _lanes(context, builder, t, t_value, o)
        zero = ir.Constant(n.type, 0)
        total = cgutils.alloca_once_value(builder, load_g(zero))
        with cgutils.for_range(builder, n) as loop:
            term = builder.fmul(load_q(loop.index), load_t(loop.index), flags=("contract",))
            builder.store(builder.fadd(builder.load(total), term, flags=("contract",)), total)
        store_g(zero, builder.load(total))
        return context.get_dummy_value()

    return signature, code


@intrinsic
def add_scaled(typing_context, n, t, o, g, f, q, i):
    """t[o + 16 c] += g[f] q[i + 16 c] for n components, sixteen lanes each; flat contiguous tiles."""
    signature = types.void(types.intp, t, types.intp, g, types.intp, q, types.intp)

    def code(context, builder, signature, arguments):
        n, t_value, o, g_value, f, q_value, i = arguments
        _, load_t, store_t = _lanes(context, builder, t, t_value, o)
        _, load_g, _ = _lanes(context, builder, g, g_value, f)
        _, load_q, _ = _lanes(context, builder, q, q_value, i)
        factor = load_g(ir.Constant(n.type, 0))
        with cgutils.for_range(builder, n) as loop:
            term = builder.fmul(factor, load_q(loop.index), flags=("contract",))
            store_t(loop.index, builder.fadd(load_t(loop.index), term, flags=("contract",)))
        return context.get_dummy_value()

    return signature, code
