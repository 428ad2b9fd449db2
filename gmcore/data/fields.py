"""Which field of a frame is which label: names in use, names that are stated, and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gmcore.data.frames import Frame
from gmcore.data.labels import label_array
from gmcore.errors import DataError, shortened
from gmcore.quantities import BY_NAME
from gmcore.suggest import nearest


def find_fields(
    frames: Sequence[Frame],
    labels: Sequence[str],
    keys: Mapping[str, str],
    total_charge: float | str | None,
    added: bool,
) -> dict[str, list[str | None]]:
    """Return for each label the name of its field in each frame; missing ones stop here, with counts."""
    candidates = {label: (keys[label],) if label in keys else (label, *BY_NAME[label].aliases) for label in labels}
    if isinstance(total_charge, str):
        candidates["total_charge"] = (total_charge,)
    if added:
        standard = {label: (label, *BY_NAME[label].aliases) if label in BY_NAME else (label,) for label in candidates}
        _refuse_two_names(frames, {label: keys[label] for label in labels if label in keys})
        candidates = {label: tuple(dict.fromkeys(names + standard[label])) for label, names in candidates.items()}
    found = {
        label: [next((name for name in names if name in frame.fields), None) for frame in frames]
        for label, names in candidates.items()
    }
    # a structure without a volume has no stress; at least one must have it, though
    needed = {label: [label != "stress" or frame.has_volume for frame in frames] for label in candidates}
    counts = {
        label: sum(need and name is not None for need, name in zip(needed[label], names))
        for label, names in found.items()
    }
    missing = [label for label in candidates if not 0 < counts[label] == sum(needed[label])]
    if missing:
        raise DataError(_missing(frames, candidates, counts, missing))
    return {label: [n if ok else None for n, ok in zip(found[label], needed[label])] for label in labels}


def _refuse_two_names(frames: Sequence[Frame], keys: Mapping[str, str]) -> None:
    """Refuse frames of added files that have a label under its name in the other files and the standard one too."""
    for frame in frames:
        for label, name in keys.items():
            if name != label and name in frame.fields and label in frame.fields:
                raise DataError(
                    f"{frame.origin} has both {name} and {label}, and only one of them can be the {label} to learn: "
                    "remove the other one from the added file"
                )


def _missing(
    frames: Sequence[Frame], candidates: Mapping[str, Sequence[str]], counts: Mapping[str, int], missing: Sequence[str]
) -> str:
    available: dict[str, Frame] = {}
    for frame in frames:
        for field_name in frame.fields:
            available.setdefault(field_name, frame)
    table = "; ".join(f"{label} found in {count} of {len(frames)} frames" for label, count in counts.items())
    similar = {
        label: name
        for label in missing
        if counts[label] == 0 and (name := _similar(label, candidates[label], available)) is not None
    }
    settings = [f"{label}: {name}" for label, name in similar.items() if label != "total_charge"]
    settings = [f"keys: {{{', '.join(settings)}}}"] if settings else []
    settings += [f"total_charge: {similar['total_charge']}"] if "total_charge" in similar else []
    hint = f"; did you mean {', '.join(similar.values())} (data: {', '.join(settings)})?" if similar else ""
    return f"labels are missing: {table}; available keys: {shortened(', '.join(available)) or 'none'}{hint}"


def _similar(label: str, candidates: Sequence[str], available: Mapping[str, Frame]) -> str | None:
    """Return the field that was probably meant: one that is spelled alike, or has a candidate's name among its words.

    A field whose values cannot be the label is none.
    """
    fitting = [name for name, frame in available.items() if _can_be(label, name, frame)]
    alike = [near for candidate in candidates if (near := nearest(candidate, fitting)) is not None]
    named = [name for name in fitting for candidate in candidates if f"_{candidate}_" in f"_{name}_"]  # D_raw
    return next(iter(alike + named), None)


def _can_be(label: str, name: str, frame: Frame) -> bool:
    try:
        if label in BY_NAME:
            label_array(label, frame.fields[name], frame)
    except DataError:
        return False
    return True
