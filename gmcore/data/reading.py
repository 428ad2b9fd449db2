"""Structures with labels from a file of any known format: raw frames, in the file's own units.

A frame carries every named array of its file under the name that the file uses; `gmcore.data.datasets` chooses,
converts and checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from gmcore.data.frames import Frame, check_numbers
from gmcore.errors import DataError, excerpt, shortened
from gmcore.formats import FORMATS, file_format


@dataclass(frozen=True)
class Source:
    """A data file, and what reading it takes.

    Attributes
    ----------
    path : the file.
    format : one of `gmcore.formats.FORMATS`, or "auto" for that of its suffix.
    elements : type -> symbol, for trajectories that name types only.
    topology : file that names the atoms of a trajectory.
    """

    path: Path
    format: str = "auto"
    elements: Mapping[str, str] = field(default_factory=dict)
    topology: Path | None = None

    @property
    def name(self) -> str:
        """Format of the file.

        Raises
        ------
        DataError : it is unknown.
        """
        name = file_format(self.path, self.format)
        if name not in FORMATS:
            raise DataError(f"the format must be auto, {', '.join(FORMATS)}, got {excerpt(name)}")
        return name

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        return [self.path] if self.topology is None else [self.path, self.topology]


def read_frames(
    source: str | Path | Source, declared: str = "auto", start: int = 0, stop: int | None = None
) -> Iterator[Frame]:
    """Yield the frames of a data file.

    Parameters
    ----------
    declared : format of a file that is given by its path.
    start, stop : number of the first frame, and one past the last (default: all).

    Raises
    ------
    DataError : the file is missing, not in the format, contains no structures, or atoms that are no elements.
    """
    source = _checked(source, declared)
    empty = True
    for frame in islice(_frames(source, start), None if stop is None else max(stop - start, 0)):
        empty = False
        check_numbers(frame)
        yield frame
    if empty and start == 0 and stop is None:
        raise DataError(f"data file {source.path} contains no structures")


def count_frames(source: str | Path | Source, declared: str = "auto") -> int:
    """Return the number of frames of a data file, without reading more than that takes.

    Raises
    ------
    DataError : the file is missing, not in the format, or contains no structures.
    """
    source = _checked(source, declared)
    if source.name == "extxyz":
        from gmcore.extxyz.reading import count_xyz_frames

        try:
            found = count_xyz_frames(source.path)
        except DataError:
            raise
        except Exception as error:  # of ASE, which raises anything
            reason = shortened(str(error)) or type(error).__name__
            raise DataError(f"{source.path} cannot be read as extended XYZ: {reason}") from error
    elif source.name == "lammps":
        from gmcore.data.readers.trajectories import count_lammps

        found = count_lammps(source.path)
    elif source.name == "mdanalysis":
        from gmcore.data.readers.trajectories import count_mdanalysis

        found = count_mdanalysis(source.path, source.topology)
    elif source.name == "hdf5":
        from gmcore.data.readers.hdf5 import count_hdf5

        found = count_hdf5(source.path)
    else:
        found = sum(1 for _ in _frames(source, 0))
    if not found:
        raise DataError(f"data file {source.path} contains no structures")
    return found


def _checked(source: str | Path | Source, declared: str) -> Source:
    """Return the source if its format is known and its files are there."""
    source = source if isinstance(source, Source) else Source(Path(source), declared)
    if source.name:
        for path in source.files:
            if not path.is_file():
                raise DataError(f"data file {path} does not exist")
    return source


def _frames(source: Source, start: int) -> Iterator[Frame]:
    """Return the frames of a file from `start` on; readers are imported on use.

    A configuration is so checked without ASE or HDF5.
    """
    path, name = source.path, source.name
    if name == "extxyz":
        from gmcore.data.readers.ase_files import read_extxyz

        return read_extxyz(path, start)
    if name in ("lammps", "mdanalysis"):
        from gmcore.data.readers.trajectories import read_lammps, read_mdanalysis

        if name == "lammps":
            return read_lammps(path, source.elements, start)
        return read_mdanalysis(path, source.elements, source.topology, start)
    if name == "hdf5":
        from gmcore.data.readers.hdf5 import read_hdf5

        return read_hdf5(path, start)
    if name == "npz":
        from gmcore.data.readers.arrays import read_npz as reader
    else:
        from gmcore.data.readers.ase_files import read_ase as reader
    return islice(reader(path), start, None)
