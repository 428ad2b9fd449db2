"""Blocks 4 to 7 of the invariants on a tile, as vector code: sixteen atoms, one per lane.

The four blocks have one shape. A small tensor Q_rs, bilinear in the moments of the channels r and s, is contracted with
the moments of every channel t of a run. One call does this for one pair (r, s), and keeps Q, its cotangent Qbar and the
tangents of both in registers.

The formulas are those of `trilinear`. They are traced: when a call is compiled they run once, with vectors in place of
numbers, and each product and sum becomes an instruction. As plain loops over the lanes they stay scalar where the
compiler cannot see that arrays do not overlap, and every sum goes through memory.

Formulas: docs/method.md, sections 3, 6.2 and 7.2.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gmcore.kernels import trilinear
from gmcore.kernels.tiles_cpu import CUBIC, MATRIX, PACKED, VECTOR
from gmcore.kernels.vector_cpu import LANES, Tile, multiply_add


class _Vector:
    """What a formula takes for a number: sixteen of them, as a value of LLVM."""

    def __init__(self, builder, value):
        self._builder, self.value = builder, value

    def __mul__(self, other: _Vector) -> _Vector:
        return _Vector(self._builder, self._builder.fmul(self.value, other.value, flags=("contract",)))

    def __add__(self, other: _Vector) -> _Vector:
        return _Vector(self._builder, self._builder.fadd(self.value, other.value, flags=("contract",)))


def _plain(formula: Any) -> FunctionType:
    """The Python function of a compiled formula, calling the Python functions of the formulas that it uses."""
    code = formula.py_func.__code__
    used = {name: getattr(trilinear, name) for name in code.co_names if hasattr(trilinear, name)}
    return FunctionType(code, {name: _plain(function) for name, function in used.items()})


def _traced(formula: Any) -> Callable:
    """The formula as a function of the builder and of tensors, each a list of LLVM values."""
    plain = _plain(formula)

    def trace(builder, *tensors):
        result = plain(*([_Vector(builder, value) for value in tensor] for tensor in tensors))
        return [component.value for component in result]

    return trace


class _Part(NamedTuple):
    """Where a tensor begins in a channel, and its number of packed components."""

    start: int
    n: int


class _Block(NamedTuple):
    """Parts a, b, t of the channels r, s, t; Q(a, b); d<c, Q(a, b)>/da of (c, b) and d<c, Q(a, b)>/db of (c, a)."""

    a: _Part
    b: _Part
    t: _Part
    quadratic: Callable
    by_a: Callable
    by_b: Callable


def _blocks() -> dict[int, _Block]:
    first, second, third = _Part(VECTOR, 3), _Part(MATRIX, 6), _Part(CUBIC, 10)
    product, matrix_vector = _traced(trilinear.product), _traced(trilinear.matrix_vector)
    cubic_matrix, on_vector = _traced(trilinear.cubic_matrix), _traced(trilinear.cubic_on_vector)
    times_vector = _traced(trilinear.matrix_times_vector)

    def on_cubic(builder, c, b):
        return cubic_matrix(builder, b, c)

    return {
        4: _Block(second, second, second, product, product, product),
        5: _Block(first, first, second, _traced(trilinear.outer), matrix_vector, matrix_vector),
        6: _Block(third, third, second, _traced(trilinear.cubic_product), on_cubic, on_cubic),
        7: _Block(
            third, second, first, _traced(trilinear.cubic_on_matrix),
            lambda builder, c, b: times_vector(builder, b, c), lambda builder, c, a: on_vector(builder, a, c),
        ),
    }  # fmt: skip


_BLOCKS = _blocks()


class _Code:
    """Writes the code of one call."""

    def __init__(self, context, builder, block: _Block):
        self._context, self.builder, self.block = context, builder, block

    def part(self, kind, value, channel, part: _Part) -> Tile:
        """The part of a channel that begins at number `channel` of a tile of moments."""
        start = self.builder.add(channel, ir.Constant(channel.type, part.start))
        return Tile(self._context, self.builder, kind, value, start)

    def features(self, kind, value, start) -> Tile:
        return Tile(self._context, self.builder, kind, value, start)

    def zeros(self, like, n: int) -> list:
        """Variables for n sums."""
        return [cgutils.alloca_once_value(self.builder, ir.Constant(like.type, [0.0] * LANES)) for _ in range(n)]

    def values(self, variables: list) -> list:
        return [self.builder.load(variable) for variable in variables]

    def channels(self, n_channels):
        """Loop over a run of channels: where feature and moments of each begin, counted from those of the first."""
        with cgutils.for_range(self.builder, n_channels) as loop:
            yield tuple(self.builder.mul(loop.index, ir.Constant(loop.index.type, width)) for width in (LANES, PACKED))

    def dot(self, total, left: list, right: list):
        """Return total + left.right."""
        for a, b in zip(left, right):
            total = multiply_add(self.builder, a, b, total)
        return total

    def accumulate(self, variables: list, factor, values: list) -> None:
        """Do variables += factor values."""
        for variable, value in zip(variables, values):
            self.builder.store(multiply_add(self.builder, factor, value, self.builder.load(variable)), variable)

    def add_to(self, tile: Tile, *terms: list, moved=None) -> None:
        """Do tile += terms."""
        sums = tile.load(len(terms[0]), moved)
        for term in terms:
            sums = self.sum(sums, term)
        tile.store(sums, moved)

    def sum(self, left: list, right: list) -> list:
        return [self.builder.fadd(a, b, flags=("contract",)) for a, b in zip(left, right)]


def _forward(block: _Block) -> Any:
    @intrinsic
    def add_features(typing_context, n_channels, g, f, m, r, s, t):
        """g[f + 16 k] += <Q(m_r, m_s), m_t> for n_channels channels t, the k-th of which begins at t + PACKED k.

        r, s and t are the places in m where channels begin.
        """
        signature = types.void(types.intp, g, types.intp, m, types.intp, types.intp, types.intp)

        def code(context, builder, signature, arguments):
            n_channels, g_value, f, m_value, r, s, t = arguments
            write = _Code(context, builder, block)
            a, b = (write.part(m, m_value, *x).load(x[1].n) for x in ((r, block.a), (s, block.b)))
            q = block.quadratic(builder, a, b)
            sums, rows = write.features(g, g_value, f), write.part(m, m_value, t, block.t)
            for feature, channel in write.channels(n_channels):
                (total,) = sums.load(1, feature)
                sums.store([write.dot(total, q, rows.load(block.t.n, channel))], feature)
            return context.get_dummy_value()

        return signature, code

    return add_features


def _backward(block: _Block) -> Any:
    @intrinsic
    def add_cotangents(typing_context, n_channels, w, g, f, m, r, s, t):
        """w += d(sum_k g[f + 16 k] <Q(m_r, m_s), m_t>)/dm, with r, s, t and k as in the forward pass."""
        signature = types.void(types.intp, w, g, types.intp, m, types.intp, types.intp, types.intp)

        def code(context, builder, signature, arguments):
            n_channels, w_value, g_value, f, m_value, r, s, t = arguments
            write = _Code(context, builder, block)
            a, b = (write.part(m, m_value, *x).load(x[1].n) for x in ((r, block.a), (s, block.b)))
            q = block.quadratic(builder, a, b)
            bars = write.zeros(q[0], len(q))
            factors, rows = write.features(g, g_value, f), write.part(m, m_value, t, block.t)
            sums = write.part(w, w_value, t, block.t)
            for feature, channel in write.channels(n_channels):
                (factor,) = factors.load(1, feature)
                write.accumulate(bars, factor, rows.load(block.t.n, channel))
                old = sums.load(block.t.n, channel)
                sums.store([multiply_add(builder, factor, x, y) for x, y in zip(q, old)], channel)
            q_bar = write.values(bars)
            write.add_to(write.part(w, w_value, r, block.a), block.by_a(builder, q_bar, b))
            write.add_to(write.part(w, w_value, s, block.b), block.by_b(builder, q_bar, a))
            return context.get_dummy_value()

        return signature, code

    return add_cotangents


def _double_backward(block: _Block) -> Any:
    @intrinsic
    def add_second(typing_context, n_channels, e, w, g, f, m, d, r, s, t):
        """Derivatives along d of the forward pass, added to e, and of the backward pass, added to w."""
        signature = types.void(types.intp, e, w, g, types.intp, m, d, types.intp, types.intp, types.intp)

        def code(context, builder, signature, arguments):
            n_channels, e_value, w_value, g_value, f, m_value, d_value, r, s, t = arguments
            write = _Code(context, builder, block)
            (a, b), (a_dot, b_dot) = (
                [write.part(kind, value, *x).load(x[1].n) for x in ((r, block.a), (s, block.b))]
                for kind, value in ((m, m_value), (d, d_value))
            )
            q = block.quadratic(builder, a, b)
            q_dot = write.sum(block.quadratic(builder, a_dot, b), block.quadratic(builder, a, b_dot))
            bars, bars_dot = write.zeros(q[0], len(q)), write.zeros(q[0], len(q))
            features, factors = write.features(e, e_value, f), write.features(g, g_value, f)
            rows, along = (write.part(kind, value, t, block.t) for kind, value in ((m, m_value), (d, d_value)))
            sums = write.part(w, w_value, t, block.t)
            for feature, channel in write.channels(n_channels):
                (factor,), (total,) = factors.load(1, feature), features.load(1, feature)
                row = rows.load(block.t.n, channel)
                total = write.dot(total, q_dot, row)
                write.accumulate(bars, factor, row)
                row = along.load(block.t.n, channel)
                features.store([write.dot(total, q, row)], feature)
                write.accumulate(bars_dot, factor, row)
                old = sums.load(block.t.n, channel)
                sums.store([multiply_add(builder, factor, x, y) for x, y in zip(q_dot, old)], channel)
            q_bar, q_bar_dot = write.values(bars), write.values(bars_dot)
            for channel, part, adjoint, other, other_dot in (
                (r, block.a, block.by_a, b, b_dot),
                (s, block.b, block.by_b, a, a_dot),
            ):
                terms = adjoint(builder, q_bar_dot, other), adjoint(builder, q_bar, other_dot)
                write.add_to(write.part(w, w_value, channel, part), *terms)
            return context.get_dummy_value()

        return signature, code

    return add_second


forward_4, forward_5, forward_6, forward_7 = map(_forward, _BLOCKS.values())
backward_4, backward_5, backward_6, backward_7 = map(_backward, _BLOCKS.values())
double_backward_4, double_backward_5, double_backward_6, double_backward_7 = map(_double_backward, _BLOCKS.values())
