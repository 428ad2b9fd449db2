"""Modes and their coupling to D as files and as a table.

modes.h5          read by `Modes.load`; with a D model it also has the group `d_tensor` (see `load_expansion`)
modes.json        the same numbers except vectors and dD/dx, each with its unit; D in the chosen unit
relaxed.extxyz    the structure that the modes belong to
modes.xyz         one frame per mode, columns symbol x y z dx dy dz (A per unit of q), for Jmol and similar viewers
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcore.analysis.couplings import TensorExpansion
from gmcore.analysis.mode_spectra import element_shares
from gmcore.analysis.modes import Modes, write_modes
from gmcore.analysis.records import quantity, write_json
from gmcore.anisotropy import zfs_parameters
from gmcore.errors import GMError
from gmcore.files import atomic_hdf5, atomic_path
from gmcore.units import conversion

if TYPE_CHECKING:
    from rich.table import Table

CONTRIBUTORS = 2  # elements listed for each mode


def write_mode_files(
    folder: str | Path,
    modes: Modes,
    expansion: TensorExpansion | None = None,
    unit: str = "cm^-1",
    temperatures: Sequence[float] = (),
    vectors: bool = False,
) -> list[Path]:
    """Write the files listed above and return their paths; each is written completely or not at all.

    Parameters
    ----------
    folder : where the files are written.
    modes : the modes.
    expansion : the expansion of D in them, None without a D model.
    unit : unit of D in modes.json; modes.h5 keeps cm^-1.
    temperatures : K, temperatures of the harmonic averages of D.
    vectors : also write modes.xyz.
    """
    from ase.io import write

    folder = Path(folder)
    paths = [folder / name for name in ("modes.h5", "modes.json", "relaxed.extxyz")]
    content = mode_record(modes, expansion, unit, temperatures)
    with atomic_hdf5(paths[0]) as file:
        write_modes(file, modes)
        if expansion is not None:
            _write_expansion(file.create_group("d_tensor"), expansion)
    write_json(paths[1], content)
    with atomic_path(paths[2]) as temporary:
        write(temporary, modes.atoms, format="extxyz")
    if vectors:
        paths.append(folder / "modes.xyz")
        with atomic_path(paths[-1]) as temporary:
            temporary.write_text("\n".join(_frames(modes)) + "\n", encoding="ascii")
    return paths


def mode_record(
    modes: Modes, expansion: TensorExpansion | None = None, unit: str = "cm^-1", temperatures: Sequence[float] = ()
) -> dict[str, Any]:
    """Return the content of modes.json; arguments as for `write_mode_files`."""
    record: dict[str, Any] = {
        "format": "gmtensor-modes",
        "schema": 1,
        "summary": modes.summary(),
        "symbols": modes.atoms.get_chemical_symbols(),
        "positions": quantity(modes.atoms.positions, "A", "structure of the modes"),
        "max_force": quantity(modes.max_force, "eV/A", "largest force on an atom of the structure"),
        "frequencies": quantity(modes.frequencies, "cm^-1", "harmonic frequencies, imaginary ones negative"),
        "rigid_frequencies": quantity(
            modes.rigid_frequencies, "cm^-1", "frequencies of rigid motions, zero in exact arithmetic"
        ),
        "reduced_masses": quantity(modes.reduced_masses, "amu", "reduced masses of the modes"),
        "shares": {
            symbol: quantity(share, "1", f"share of {symbol} in the kinetic energy of each mode")
            for symbol, share in element_shares(modes).items()
        },
    }
    if expansion is None:
        return record
    factor = 1.0 / conversion("d_tensor", unit)[0]
    d, e, *_ = zfs_parameters(expansion.value)
    slope_d, slope_e = expansion.slopes()
    record["d_tensor"] = {
        "value": quantity(factor * expansion.value, unit, "D tensor of the structure"),
        "D": quantity(factor * d, unit, "D = 3/2 Z"),
        "E": quantity(factor * e, unit, "E = |X - Y|/2"),
        "first": quantity(
            factor * expansion.first, unit, "dD/dq, q dimensionless", committee=factor * expansion.first_std
        ),
        "second": quantity(factor * expansion.second, unit, "d2D/dq2"),
        "strength": quantity(factor * expansion.strength, unit, "Frobenius norm of dD/dq"),
        "slope_D": quantity(factor * slope_d, unit, "derivative of D = 3/2 Z with respect to q"),
        "slope_E": quantity(factor * slope_e, unit, "derivative of E with respect to q; has no meaning at E = 0"),
        "left_out": quantity(
            list(expansion.left_out), "", "indices, from 0, of atoms that are too close to the mean position"
        ),
        "harmonic": [_harmonic(expansion, temperature, factor, unit) for temperature in temperatures],
    }
    return record


def mode_table(modes: Modes, expansion: TensorExpansion | None, unit: str = "cm^-1", rows: int = 20) -> Table:
    """Return a table of the modes that couple most strongly to D, or of the lowest modes without a D model.

    Parameters
    ----------
    modes : the modes.
    expansion : the expansion of D in them, None without a D model.
    unit : unit of D.
    rows : number of modes; 0 for all of them.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption=None if expansion is None else f"D in {unit} per unit of q")
    for title in ("mode", "cm^-1", "atoms"):
        table.add_column(title, justify="left" if title == "atoms" else "right")
    shares = element_shares(modes)
    order = np.arange(len(modes))
    if expansion is not None:
        factor = 1.0 / conversion("d_tensor", unit)[0]
        for title in ("|dD/dq|", "+-", "dD", "dE"):
            table.add_column(title, justify="right")
        numbers = factor * np.stack(
            [expansion.strength, np.linalg.norm(expansion.first_std, axis=(1, 2)), *expansion.slopes()]
        )
        order = np.argsort(-np.nan_to_num(expansion.strength, nan=-1.0), kind="stable")
    for k in order[: rows or None]:
        main = sorted(shares, key=lambda symbol: -shares[symbol][k])[:CONTRIBUTORS]
        row = [str(k + 1), f"{modes.frequencies[k]:.1f}", ", ".join(f"{s} {shares[s][k]:.0%}" for s in main)]
        if expansion is not None:
            row += ["" if np.isnan(number) else f"{number:.3g}" for number in numbers[:, k]]
        table.add_row(*row)
    return table


def load_expansion(path: str | Path) -> TensorExpansion:
    """Read the expansion of D in a file modes.h5.

    Raises
    ------
    GMError : if the file holds none.
    """
    import h5py

    modes = Modes.load(path)
    with h5py.File(path, "r") as file:
        if "d_tensor" not in file:
            raise GMError(f"{path} holds modes without D; write it again with a D model: gmtensor modes --d-tensor")
        group = file["d_tensor"]
        arrays = {name: dataset[()] for name, dataset in group.items()}
        left_out = tuple(int(atom) for atom in group.attrs["left_out"])
        return TensorExpansion(
            frequencies=modes.frequencies, unit=str(group.attrs["unit"]), left_out=left_out, **arrays
        )


def _write_expansion(group, expansion: TensorExpansion) -> None:
    group.attrs["unit"] = expansion.unit
    group.attrs["left_out"] = np.array(expansion.left_out, np.int64)
    for name in ("value", "gradient", "first", "first_std", "second"):
        dataset = group.create_dataset(name, data=getattr(expansion, name))
        dataset.attrs["unit"] = f"{expansion.unit}/A" if name == "gradient" else expansion.unit


def _harmonic(expansion: TensorExpansion, temperature: float, factor: float, unit: str) -> dict[str, Any]:
    record: dict[str, Any] = {"temperature": quantity(temperature, "K", "temperature")}
    for statistics, quantum in (("quantum", True), ("classical", False)):
        mean = expansion.thermal_mean(temperature, quantum)
        d, e, *_ = zfs_parameters(mean)
        width = expansion.thermal_width(temperature, quantum)
        record[statistics] = {
            "mean": quantity(factor * mean, unit, "<tensor> of harmonic modes, second order"),
            "width": quantity(factor * width, unit, "standard deviation of each element, first order"),
            "D": quantity(factor * d, unit, "D of <tensor>"),
            "E": quantity(factor * e, unit, "E of <tensor>"),
        }
    return record


def _frames(modes: Modes) -> list[str]:
    """Return the lines of a multi-frame XYZ file; modes of imaginary frequency are given in A sqrt(amu)."""
    symbols, lines = modes.atoms.get_chemical_symbols(), []
    real = np.isfinite(modes.displacements).all(axis=(1, 2), keepdims=True)
    moves = np.where(real, modes.displacements, modes.vectors)
    for k, frequency in enumerate(modes.frequencies):
        lines += [str(len(symbols)), f"mode {k + 1}, {frequency:.2f} cm^-1"]
        for symbol, position, move in zip(symbols, modes.atoms.positions, moves[k]):
            numbers = " ".join(f"{number:12.6f}" for number in (*position, *move))
            lines.append(f"{symbol:<2} {numbers}")
    return lines
