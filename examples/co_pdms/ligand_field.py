"""Model D tensor of a four-coordinate Co(II) complex: angular-overlap orbitals, spin-orbit coupling in second order.

This is a *model*, not a quantum-chemical calculation: its merit is that it is exact, fast, smooth and has the symmetry
of the real thing, so that it can be shipped, recomputed and learned.

Orbitals. The five d orbitals are the symmetric traceless matrices Q_m of their quadratic forms, d_m(u) = u^T Q_m u,
tr(Q_m Q_n) = 3/2 delta_mn. With u the unit vector from Co to a nitrogen and p a unit vector perpendicular to u, the
overlap factors of a sigma and of a pi ligand orbital are

    F_sigma,m = u^T Q_m u,          F_pi,m = (2/sqrt(3)) u^T Q_m p,

and the angular-overlap Hamiltonian (C. E. Schaffer, C. K. Jorgensen, Mol. Phys. 1965, 9, 401) is

    H_mn = sum_N [ e_sigma(r) F_sigma,m F_sigma,n + e_pi(r) F_pi,m F_pi,n ] - v_m v_n,      e(r) = e(r_0) (r_0/r)^5,
    v_m  = sum_N sqrt(e_ds(r)) F_sigma,m.

The exponent is that of the crystal-field splitting 10 Dq of a point charge. Each nitrogen is planar (Co, S, C): its one
pi lone pair is perpendicular to the plane N-S-C, so p is the normal of that plane made perpendicular to u, and there is
no pi interaction in the plane. The last term is the admixture of the empty 4s orbital through the ligands (d-s mixing,
L. G. Vanquickenborne, A. Ceulemans, Inorg. Chem. 1981, 20, 796). It vanishes in a tetrahedron and lowers z2 in one that
is stretched along its S4 axis; without it the bite angle of 80 degrees makes z2 and xy, one doubly and one singly
occupied, cross.

Occupation. d7 with S = 3/2: the five spin-up electrons fill the shell and carry no orbital moment; the two spin-down
electrons take the two lowest orbitals (e^4 t2^3, a 4A2 ground state in a tetrahedron). Equivalently the three holes of
the spin-down shell are the t2^3 of a d3 ion. Electron repulsion enters by this high-spin coupling only.

Spin-orbit coupling. For excited states of the same spin, second order gives (F. Neese, E. I. Solomon, Inorg. Chem.
1998, 37, 6568, the spin-conserving doubly -> singly occupied excitations)

    D_ab = -zeta^2/(4 S^2) sum_{i doubly} sum_{p singly} <i|l_a|p> <p|l_b|i> / (eps_p - eps_i),

with 4 S^2 = 9. States of other spin are left out. Both sums run over whole shells, so D is a smooth function of the
geometry as long as the gap between the second and the third orbital stays open; a closed gap is an error.

Not supported: coordination numbers other than four, donors other than planar nitrogen with one S and one C neighbor.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

COBALT, NITROGEN, SULFUR, CARBON = 27, 7, 16, 6
SPIN = 1.5
R3 = np.sqrt(3.0) / 2.0

# Q_m of z2, x2-y2, xy, xz, yz
D_ORBITALS = np.array(
    [
        [[-0.5, 0, 0], [0, -0.5, 0], [0, 0, 1]],
        [[R3, 0, 0], [0, -R3, 0], [0, 0, 0]],
        [[0, R3, 0], [R3, 0, 0], [0, 0, 0]],
        [[0, 0, R3], [0, 0, 0], [R3, 0, 0]],
        [[0, 0, 0], [0, 0, R3], [0, R3, 0]],
    ]
)


def _angular_momentum() -> np.ndarray:
    """K (3, 5, 5), real and antisymmetric, with <m|l_a|n> = i K_a,mn: infinitesimal rotations of the Q_m."""
    generators = np.zeros((3, 3, 3))
    for a, b, c in permutations(range(3)):
        generators[a, b, c] = -np.linalg.det(np.eye(3)[[a, b, c]])
    rotated = np.einsum("abc,ncd->anbd", generators, D_ORBITALS) - np.einsum("nbc,acd->anbd", D_ORBITALS, generators)
    return 2.0 / 3.0 * np.einsum("mbd,anbd->amn", D_ORBITALS, rotated)


ANGULAR_MOMENTUM = _angular_momentum()


@dataclass(frozen=True)
class LigandField:
    """Parameters of the model.

    Attributes
    ----------
    e_sigma, e_pi, e_ds : angular-overlap parameters at `distance`, cm^-1.
    distance : Co-N distance r_0 at which they hold, A.
    exponent : they scale as (distance/r)^exponent.
    zeta : one-electron spin-orbit coupling constant, cm^-1; about 530 for the free Co(2+) ion.
    minimal_gap : gap between second and third orbital, cm^-1, below which second order is refused.
    """

    e_sigma: float = 4500.0
    e_pi: float = 300.0
    e_ds: float = 2000.0
    distance: float = 2.05
    exponent: float = 5.0
    zeta: float = 530.0
    minimal_gap: float = 100.0


def coordination(numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bond vectors (4, 3) from Co to its four nearest N, A, and unit normals (4, 3) of their N-S-C planes.

    Atoms are found by element and distance, never by index.

    Raises
    ------
    ValueError : there is not exactly one Co, or there are too few N, S or C atoms.
    """
    numbers, positions = np.asarray(numbers), np.asarray(positions, dtype=float)
    metals = np.flatnonzero(numbers == COBALT)
    if len(metals) != 1:
        raise ValueError(f"the model needs exactly one cobalt atom, got {len(metals)}")
    if np.count_nonzero(numbers == NITROGEN) < 4:
        raise ValueError(f"the model needs four nitrogen atoms, got {np.count_nonzero(numbers == NITROGEN)}")
    if not (np.any(numbers == SULFUR) and np.any(numbers == CARBON)):
        raise ValueError("the model needs sulfur and carbon atoms, but at least one of these elements is missing")

    def nearest(element: int, center: np.ndarray, count: int) -> np.ndarray:
        candidates = positions[numbers == element] - center
        return candidates[np.argsort(np.linalg.norm(candidates, axis=1), kind="stable")[:count]]

    bonds = nearest(NITROGEN, positions[metals[0]], 4)
    normals = np.empty_like(bonds)
    for k, nitrogen in enumerate(positions[metals[0]] + bonds):
        normals[k] = np.cross(nearest(SULFUR, nitrogen, 1)[0], nearest(CARBON, nitrogen, 1)[0])
    return bonds, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def hamiltonian(bonds: np.ndarray, normals: np.ndarray, field: LigandField) -> np.ndarray:
    """Angular-overlap Hamiltonian (5, 5) in the basis z2, x2-y2, xy, xz, yz, cm^-1."""
    r = np.linalg.norm(bonds, axis=1, keepdims=True)
    u = bonds / r
    p = normals - np.sum(normals * u, axis=1, keepdims=True) * u
    p /= np.linalg.norm(p, axis=1, keepdims=True)
    sigma = np.einsum("la,mab,lb->lm", u, D_ORBITALS, u)
    pi = 2.0 / np.sqrt(3.0) * np.einsum("la,mab,lb->lm", u, D_ORBITALS, p)
    # one square root of the decay for each of the two overlaps in a term
    decay = (field.distance / r) ** (field.exponent / 2.0)
    sigma, pi = decay * sigma, decay * pi
    mixing = sigma.sum(axis=0)
    return field.e_sigma * sigma.T @ sigma + field.e_pi * pi.T @ pi - field.e_ds * np.outer(mixing, mixing)


def d_tensor(numbers: np.ndarray, positions: np.ndarray, field: LigandField | None = None) -> np.ndarray:
    """Traceless D tensor (3, 3), cm^-1, of one molecule: numbers (n_atoms,), positions (n_atoms, 3) in A.

    Raises
    ------
    ValueError : as for `coordination`, or the gap between the second and third orbital is too small.
    """
    field = field or LigandField()
    energies, orbitals = np.linalg.eigh(hamiltonian(*coordination(numbers, positions), field))
    if energies[2] - energies[1] < field.minimal_gap:
        raise ValueError(
            f"second order needs a gap of at least {field.minimal_gap:g} cm^-1 between the second and the third "
            f"orbital, got {energies[2] - energies[1]:.1f} cm^-1"
        )
    doubly, singly = orbitals[:, :2], orbitals[:, 2:]
    elements = np.einsum("mi,amn,np->aip", doubly, ANGULAR_MOMENTUM, singly)
    gaps = energies[None, 2:] - energies[:2, None]
    tensor = -(field.zeta**2) / (4 * SPIN**2) * np.einsum("aip,bip,ip->ab", elements, elements, 1.0 / gaps)
    return tensor - np.trace(tensor) / 3.0 * np.eye(3)
