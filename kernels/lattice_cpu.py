"""Cells completed to three independent vectors, and their inverses."""

import math

from gmcore.kernels.compile import exact_jit


@exact_jit
def complete_cells(cells, pbc, lattice, inverse, fraction):
    """Fill `lattice` with `cells` whose non-periodic rows are unit vectors normal to the others.

    Also fill `inverse` with its inverse and `fraction` with |volume| / product of the row lengths (0 for dependent
    rows; `inverse` is then void).
    """
    for k in range(cells.shape[0]):
        n_periodic = 0
        for a in range(3):
            n_periodic += pbc[k, a]
            for b in range(3):
                lattice[k, a, b] = cells[k, a, b] if pbc[k, a] else 0.0
        if n_periodic == 0:
            for a in range(3):
                lattice[k, a, a] = 1.0
        elif n_periodic == 1:
            _two_normals(lattice[k], pbc[k])
        elif n_periodic == 2:
            a = 0 if not pbc[k, 0] else (1 if not pbc[k, 1] else 2)
            _normal(lattice[k], a, (a + 1) % 3, (a + 2) % 3)
        fraction[k] = _invert(lattice[k], inverse[k])


@exact_jit
def _two_normals(rows, pbc):
    """Complete one row `p` by two unit rows: one normal to p and to the axis p is least along, one to both."""
    p = 0 if pbc[0] else (1 if pbc[1] else 2)
    q, r = (p + 1) % 3, (p + 2) % 3
    least = 0
    for b in range(1, 3):
        if abs(rows[p, b]) < abs(rows[p, least]):
            least = b
    rows[r, least] = 1.0
    _normal(rows, q, r, p)
    _normal(rows, r, p, q)


@exact_jit
def _normal(rows, a, b, c):
    """rows[a] = unit vector along rows[b] x rows[c]; zero where these are parallel."""
    x = rows[b, 1] * rows[c, 2] - rows[b, 2] * rows[c, 1]
    y = rows[b, 2] * rows[c, 0] - rows[b, 0] * rows[c, 2]
    z = rows[b, 0] * rows[c, 1] - rows[b, 1] * rows[c, 0]
    length = math.sqrt(x * x + y * y + z * z)
    scale = 1.0 / length if length > 0.0 else 0.0
    rows[a, 0], rows[a, 1], rows[a, 2] = x * scale, y * scale, z * scale


@exact_jit
def _invert(m, inverse):
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        for i in range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            inverse[i, a] = m[b, j] * m[c, k] - m[b, k] * m[c, j]
    determinant = m[0, 0] * inverse[0, 0] + m[0, 1] * inverse[1, 0] + m[0, 2] * inverse[2, 0]
    edges = 1.0
    for a in range(3):
        edges *= math.sqrt(m[a, 0] * m[a, 0] + m[a, 1] * m[a, 1] + m[a, 2] * m[a, 2])
    scale = 1.0 / determinant if determinant != 0.0 else 0.0
    for i in range(3):
        for a in range(3):
            inverse[i, a] *= scale
    return abs(determinant) / edges if edges > 0.0 else 0.0
