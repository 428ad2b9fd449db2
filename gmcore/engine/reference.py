"""The slow twin: moments, invariants and energy in plain NumPy, straight from the formulas, as the definition.

Every fast path is compared with this file, in value and in both derivative orders. It is holomorphic (rho by sqrt, no
abs, conj or norm), so `complex_step` differentiates it to rounding in positions, strain, beta, moments or weights.
Memory grows with pairs x channels x 27: for small systems only.

Pairs are given as `first`, `neighbor` (n_pairs,) and `offset` (n_pairs, 3) = S @ cell, d = r_j - r_i + S @ cell; they
may come from any neighbor list. `find_pairs` is the brute-force one.

Formulas: docs/method.md, sections 1, 2, 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from gmcore.engine.settings import DescriptorSettings, HeadSettings, Member

# Independent components: zz = 1 - xx - yy and so on follow from |u| = 1.
SECOND = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)]
THIRD = [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 1), (0, 1, 2), (1, 1, 1), (1, 1, 2)]
SWISH = 1.6765324703310907  # E[(SWISH x sigmoid(x))^2] = 1 under N(0, 1)


def find_pairs(positions, cell, pbc, cutoff: float):
    """All directed pairs within `cutoff`, every image, by trying them all; returns first, neighbor, offset."""
    positions, pbc = np.asarray(positions, float), np.broadcast_to(pbc, 3)
    reach = np.zeros(3, int)
    if pbc.any():
        # Open directions need some vector to make the cell invertible; which one is irrelevant for pairs that are kept.
        heights = 1.0 / np.sqrt((np.linalg.pinv(np.asarray(cell, float)[pbc]) ** 2).sum(0))
        wide = np.ptp(positions, axis=0)
        reach[pbc] = np.ceil((cutoff + np.sqrt(wide @ wide)) / heights)
    first, neighbor, offset = [], [], []
    for shift in product(*(range(-n, n + 1) for n in reach)):
        move = np.array(shift) @ np.asarray(cell, float) if any(shift) else np.zeros(3)
        d = positions[None] - positions[:, None] + move
        rho2 = (d * d).sum(-1)
        i, j = np.nonzero((rho2 < cutoff**2) & ((rho2 > 0) | bool(any(shift))))
        first.append(i)
        neighbor.append(j)
        offset.append(np.tile(move, (len(i), 1)))
    return np.concatenate(first), np.concatenate(neighbor), np.concatenate(offset)


def radial(rho, beta_pairs, settings: DescriptorSettings):
    """R_s(rho): (n_pairs, n_radial) from rho (n_pairs,) and beta_pairs (n_pairs, n_radial, n_basis)."""
    n, r_c, r_min = settings.n_basis, settings.r_max, settings.r_min
    mu = r_min + np.arange(n) * (r_c - r_min) / n
    gamma = n**2 / r_c**2
    phi = (2 * gamma / np.pi) ** 0.25 * np.exp(-gamma * (rho[:, None] - mu) ** 2)
    f = np.where(rho.real < r_c, 0.5 * (1 + np.cos(np.pi * rho / r_c)), 0.0)
    return f[:, None] * np.einsum("psb,pb->ps", beta_pairs, phi) / np.sqrt(n)


def cartesian_moments(positions, species, first, neighbor, offset, beta, settings, strain=None, guard=0.0):
    """M^0..M^3 with all Cartesian components: (n_atoms, n_radial), (..., 3), (..., 3, 3), (..., 3, 3, 3).

    strain : (3, 3), or (n_pairs, 3, 3) for several structures; d -> d + strain d.
    guard : added to rho in u = d/rho, A; zero but for comparison with implementations that have one.
    """
    d = positions[neighbor] - positions[first] + offset
    if strain is not None:
        d = d + np.einsum("...ab,...b->...a", strain, d)
    rho = np.sqrt((d * d).sum(-1))
    u = d / (rho + guard)[:, None]
    term = radial(rho, beta[species[first], species[neighbor]], settings)
    moments = []
    for rank in range(4):
        moment = np.zeros((len(positions), *term.shape[1:]), dtype=term.dtype)
        np.add.at(moment, first, term)
        moments.append(moment)
        if rank < 3:
            term = term[..., None] * u.reshape(len(u), *[1] * (rank + 1), 3)
    return moments


def pack(m0, m1, m2, m3):
    """(n_atoms, n_radial, 16) in the order 1; x,y,z; xx,xy,xz,yy,yz; xxx,xxy,xxz,xyy,xyz,yyy,yyz."""
    parts = [m0] + [m1[..., a] for a in range(3)]
    parts += [m2[..., a, b] for a, b in SECOND] + [m3[..., a, b, c] for a, b, c in THIRD]
    return np.stack(parts, axis=-1)


def unpack(moments):
    """Inverse of `pack`, the dependent components from tr M2 = M0 and tr_12 M3 = M1."""
    m0, m1 = moments[..., 0], moments[..., 1:4]
    m2 = np.empty((*m0.shape, 3, 3), moments.dtype)
    m3 = np.empty((*m0.shape, 3, 3, 3), moments.dtype)
    for k, (a, b) in enumerate(SECOND):
        m2[..., a, b] = m2[..., b, a] = moments[..., 4 + k]
    m2[..., 2, 2] = m0 - m2[..., 0, 0] - m2[..., 1, 1]
    packed = {abc: moments[..., 9 + k] for k, abc in enumerate(THIRD)}
    for a in range(3):  # azz = a - axx - ayy
        axx, ayy = (packed[tuple(sorted((a, b, b)))] for b in range(2))
        packed[a, 2, 2] = m1[..., a] - axx - ayy
    for abc in product(range(3), repeat=3):
        m3[(..., *abc)] = packed[tuple(sorted(abc))]
    return m0, m1, m2, m3


def moments(positions, species, first, neighbor, offset, beta, settings, strain=None):
    """The 16 independent components, (n_atoms, n_radial, 16); arguments as in `cartesian_moments`."""
    return pack(*cartesian_moments(positions, species, first, neighbor, offset, beta, settings, strain))


def cartesian_contractions(m0, m1, m2, m3):
    """The invariants (n_atoms, n_features), blocks 0 to 7 one after another, last index fastest in each."""
    n = m0.shape[1]
    r, s = np.triu_indices(n)
    tri = [(a, b, c) for a in range(n) for b in range(a, n) for c in range(b, n)]
    x, y, z = np.array(tri).T
    blocks = [
        m0,
        np.einsum("ipa,ipa->ip", m1[:, r], m1[:, s]),
        np.einsum("ipab,ipab->ip", m2[:, r], m2[:, s]),
        np.einsum("ipabc,ipabc->ip", m3[:, r], m3[:, s]),
        np.einsum("ipac,ipca->ip", m2[:, x] @ m2[:, y], m2[:, z]),
        np.einsum("ipa,itab,ipb->ipt", m1[:, r], m2, m1[:, s]),
        np.einsum("ipabc,ipabd,itcd->ipt", m3[:, r], m3[:, s], m2),
        np.einsum("irabc,isab,itc->irst", m3, m2, m1),
    ]
    return np.concatenate([block.reshape(len(m0), -1) for block in blocks], axis=1)


def contractions(moments):
    """The invariants (n_atoms, n_features) of packed moments (n_atoms, n_radial, 16)."""
    return cartesian_contractions(*unpack(moments))


def features(positions, species, first, neighbor, offset, beta, settings, strain=None, guard=0.0):
    """Descriptor G (n_atoms, n_features); arguments as in `cartesian_moments`."""
    return cartesian_contractions(
        *cartesian_moments(positions, species, first, neighbor, offset, beta, settings, strain, guard)
    )


def network(inputs, member: Member):
    """Bare network output (n_atoms, n_outputs): NTK layers with the scaled swish between them."""
    h = (inputs - member.feature_mean) / member.feature_std
    for layer, (weight, bias) in enumerate(zip(member.weights, member.biases)):
        if layer > 0:
            h = 0.5 * SWISH * h * (1 + np.tanh(0.5 * h))  # x sigmoid(x), without overflow
        h = h @ weight / np.sqrt(weight.shape[0]) + 0.1 * bias
    return h


def head_outputs(inputs, species, member: Member, heads: tuple[HeadSettings, ...]):
    """Dict of m_i = scale[Z_i] y_i + shift[Z_i], (n_atoms, n_outputs) by head name."""
    y, start, outputs = network(inputs, member), 0, {}
    for head in heads:
        part = y[:, start : start + head.n_outputs]
        outputs[head.name] = member.scale[head.name][species] * part + member.shift[head.name][species]
        start += head.n_outputs
    return outputs


def energy(positions, species, first, neighbor, offset, member: Member, settings, strain=None, name="energy"):
    """Total energy (scalar) of a model whose only head is an energy called `name`."""
    g = features(positions, species, first, neighbor, offset, member.beta, settings, strain)
    head = HeadSettings(name=name, kind="energy")
    return head_outputs(g, species, member, (head,))[name].sum()


def complex_step(f: Callable, x, h: float = 1e-40):
    """Jacobian of a holomorphic f at real x to rounding: f(x).shape + x.shape, by Im f(x + ih e)/h."""
    x = np.array(x, float)
    columns = []
    for k in range(x.size):
        z = x.astype(complex)
        z.flat[k] += 1j * h
        columns.append(np.imag(f(z)) / h)
    return np.stack(columns, axis=-1).reshape((*np.shape(columns[0]), *x.shape))
