"""Further tables: comparison with other values, modes, errors of the models, settings of the run."""

from __future__ import annotations

from typing import Any

import numpy as np

from gmcore.config.analysis import COMPARABLE
from gmcore.report.numbers import MISSING, as_given, fixed, number, quantity_text, unit_text, with_unit
from gmcore.report.tables import QUANTITIES, Cell, Table, cell, row
from gmcore.units import conversion

STRONGEST = 12
"""Number of modes in the table of couplings."""

WORDS = {
    "D": "⟨D⟩",
    "D_width": "width of D",
    "D_of_mean": "D of ⟨tensor⟩",
    "E": "⟨E⟩",
    "E_width": "width of E",
    "E_of_mean": "E of ⟨tensor⟩",
    "d_deviation": "committee deviation of D",
    "forces_deviation": "committee deviation of forces",
    "distance": "mean metal–ligand distance",
    "order": "tetrahedral order q",
    "correlation_D_distance": "r of D with the distance",
    "correlation_D_order": "r of D with q",
    "correlation_E_distance": "r of E with the distance",
    "correlation_E_order": "r of E with q",
    "training_mae": "MAE of the elements of D",
    "training_rmse": "RMSE of the elements of D",
}


def comparison(analysis: dict[str, Any]) -> Table | None:
    """Return a comparison of the run with the values of its reference, None without a reference."""
    reference = analysis["reference"]
    if not reference:
        return None
    rows = []
    for given in reference["values"]:
        label = WORDS[given["quantity"]]
        unit = _unit_of(given["quantity"], analysis)
        for state, entry in _own(analysis, given["quantity"], given["temperature"]):
            where = f", {state['label']}" if state else ""
            rows.append((with_unit(f"{label}{where}", unit_text(unit)), [cell(entry), _reference_cell(given, unit)]))
        if not _own(analysis, given["quantity"], given["temperature"]):
            where = "" if given["temperature"] is None else f", {given['temperature']:g} K"
            rows.append((with_unit(f"{label}{where}", unit_text(unit)), [Cell(MISSING), _reference_cell(given, unit)]))
    return Table(
        "comparison", "Comparison with other values", ["", "this run", reference["source"]], rows, reference["note"]
    )


def modes(analysis: dict[str, Any]) -> Table | None:
    """Return the modes that couple most strongly to D, None without a D model or modes."""
    found = analysis["modes"]
    if not found or "coupling" not in found:
        return None
    unit = unit_text(analysis["unit"])
    coupling, frequencies = found["coupling"], found["frequencies"]["value"]
    strength = np.array(coupling["strength"]["value"], dtype=float)
    strongest = np.argsort(np.where(np.isfinite(strength), -strength, np.inf))[:STRONGEST]
    states = [state for state in analysis["states"] if "coherence" in state.get("modes", {})]
    columns = [
        "wavenumber / cm⁻¹",
        f"|∂tensor/∂q| / {unit}",
        f"∂D/∂q / {unit}",
        f"|∂E/∂q| / {unit}",
        *(f"coherence with D, {state['label']}" for state in states[:2]),
        "share of the elements",
    ]
    rows = []
    for k in sorted(int(k) for k in strongest):
        shares = sorted(((share[k], symbol) for symbol, share in found["shares"]["value"].items()), reverse=True)
        movers = ", ".join(f"{symbol} {100 * share:.0f} %" for share, symbol in shares[:3] if share >= 0.05)
        of_k = [coupling[name]["value"][k] for name in ("strength", "dD", "dE")]
        cells = [
            Cell(fixed(of_k[0], 2), f"committee {fixed(coupling['strength']['committee'][k], 2)}"),
            Cell(fixed(of_k[1], 2)),
            Cell(fixed(of_k[2], 2)),
            *(Cell(fixed(state["modes"]["coherence"]["D"]["value"][k], 2)) for state in states[:2]),
            Cell(movers),
        ]
        rows.append((fixed(frequencies[k], 1), cells))
    note = (
        f"The {len(rows)} modes with the strongest coupling. {found['summary'][0].upper()}{found['summary'][1:]}. q is "
        "dimensionless, ⟨q²⟩ = 1/2 in the ground state. Shares are those of the kinetic energy of the mode."
    )
    if found.get("left_out"):
        note += (
            f" These atoms are left out of the derivatives: {', '.join(found['left_out'])}. They are so close to the "
            "mean position of all atoms that their direction from it is undefined, and this kind of D model needs it."
        )
    return Table("modes", "Modes that couple to D", columns, rows, note)


def harmonic(analysis: dict[str, Any]) -> Table | None:
    """Return D of the run compared with that of harmonic modes, None without modes."""
    states = [state for state in analysis["states"] if "expected" in state.get("modes", {})]
    if not states:
        return None
    unit = unit_text(analysis["unit"])
    rows = []
    for label, name in (
        ("width of D", "D_width"),
        ("D of ⟨tensor⟩", "D_of_mean"),
        ("E of ⟨tensor⟩", "E_of_mean"),
    ):
        rows.append((with_unit(f"{label}, run", unit), row([state["anisotropy"].get(name) for state in states])))
        for kind in ("classical", "quantum"):
            cells = row([state["modes"]["expected"][kind][name] for state in states])
            rows.append((with_unit(f"{label}, {kind} harmonic modes", unit), cells))
    if any("explained" in state["modes"] for state in states):
        cells = [
            Cell(f"{fixed(100 * state['modes']['explained']['value'], 1)} %", "", state["modes"]["explained"])
            if "explained" in state["modes"]
            else Cell(MISSING)
            for state in states
        ]
        rows.append(("variance of the elements explained by the modes", cells))
    coupling = analysis["modes"]["coupling"]
    note = (
        f"Relaxed structure: D {quantity_text(coupling['D'])}, E {quantity_text(coupling['E'])} {unit}. Widths are "
        "of first order in the modes, means of second order. Molecular dynamics samples classical modes. Quantum modes "
        "include zero-point motion, which is missing in the dynamics and dominates at low temperature."
    )
    return Table(
        "harmonic", "Comparison of the run with harmonic modes", ["", *(state["label"] for state in states)], rows, note
    )


def training(analysis: dict[str, Any]) -> Table | None:
    """Return the errors of the models for test structures, None if they are unknown."""
    rows, signs = [], []
    for name, found in analysis["training"].items():
        metrics = found.get("metrics", {})
        part = next((part for part in ("test", "validation") if part in metrics), None)
        if part is None:
            continue
        for quantity, errors in metrics[part].items():
            if errors.get("wrong_sign") is not None:
                signs.append(f" D has the wrong sign in {errors['wrong_sign']} of {errors['n']} structures ({part}).")
            model = "D model" if name == "d_tensor" else "potential"
            words = with_unit(f"{model}, {QUANTITIES.get(quantity, quantity)}", unit_text(errors["unit"]))
            rows.append(
                (
                    words,
                    [
                        Cell(number(errors["mae"], 3), "", errors),
                        Cell(number(errors["rmse"], 3)),
                        Cell(number(errors.get("mean_rmse"), 3)),
                        Cell(fixed(errors.get("r2"), 3)),
                        Cell(number(errors.get("committee_std"), 3)),
                        Cell(f"{errors['n']} ({part})"),
                    ],
                )
            )
    if not rows:
        return None
    note = (
        "From metrics.json of each training. RMSE of the mean: error of a model that always predicts the mean of the "
        "reference values, and R² = 1 − (RMSE / RMSE of the mean)². Committee: mean deviation over the members, for "
        f"the same values.{''.join(signs)}"
    )
    columns = ["", "MAE", "RMSE", "RMSE of the mean", "R²", "committee", "values"]
    return Table("training", "Errors of the models", columns, rows, note)


def models(analysis: dict[str, Any]) -> Table | None:
    """Return the facts of the models, None if no model was found."""
    if not analysis["models"]:
        return None
    names = {"potential": "potential", "d_tensor": "D model"}
    found = list(analysis["models"].items())
    rows = [
        ("file, relative to the run folder", [Cell(facts["file"]) for _, facts in found]),
        ("members", [Cell(str(facts["members"])) for _, facts in found]),
        ("cutoff / Å", [Cell(f"{facts['descriptor']['r_max']:g}") for _, facts in found]),
        ("sizes of the layers", [Cell("–".join(str(size) for size in facts["network"])) for _, facts in found]),
        ("precision", [Cell(facts["dtype"]) for _, facts in found]),
        ("structures for training, validation, test", [Cell(_structures(facts["n_structures"])) for _, facts in found]),
        ("recipe", [Cell(facts["preset"] or MISSING) for _, facts in found]),
        ("date of the training", [Cell((facts["date"] or MISSING)[:10]) for _, facts in found]),
    ]
    return Table("models", "Models", ["", *(names.get(name, name) for name, _ in found)], rows)


def run(analysis: dict[str, Any]) -> Table:
    """Return the settings of the run and of its analysis."""
    facts, settings = analysis["run"], analysis["settings"]
    config = facts["config"] or {}
    ensemble = {"nve": "NVE", "langevin": "NVT, Langevin", "nose_hoover": "NVT, Nosé–Hoover chains", "npt": "NPT"}
    words = ensemble.get(facts["ensemble"], facts["ensemble"])
    if facts["ensemble"] == "langevin" and config:
        words += f", friction {config['ensemble']['friction']:g}/ps"
    entries = [
        ("system", f"{facts['formula']}, {facts['n_atoms']} atoms, {'periodic' if facts['periodic'] else 'gas phase'}"),
        ("ensemble", words),
        ("time step", f"{facts['time_step']['value']:g} fs"),
        ("replicas", "; ".join(_replicas(state, facts["seeds"]) for state in analysis["states"])),
        ("length of each replica", f"{facts['duration']['value']:g} ps"),
        ("left out at the start of each replica", f"{facts['discarded']['value']:g} ps"),
    ]
    if config.get("equilibration"):
        entries.append(("equilibration before recording", f"{config['equilibration']:g} ps"))
    if facts["molecule"]:
        entries.insert(1, ("molecule with a D tensor", f"{facts['molecule']}, {facts['n_molecules']} in the structure"))
    for name, words in (("d_tensor", "D"), ("position", "positions"), ("velocity", "velocities")):
        if name in facts["recorded"]:
            found = facts["recorded"][name]
            entries.append(
                (
                    f"samples of {words} per replica",
                    f"{found['samples']}, every {found['interval']['value']:g} fs",
                )
            )
    entries += [
        ("blocks of each replica", str(settings["blocks"])),
        ("order of maximum-entropy spectra", str(settings["mesa_order"] or "chosen for each series")),
        ("resolution of Fourier spectra", _resolution(analysis)),
    ]
    return Table("run", "Run and analysis", ["", ""], [(label, [Cell(text)]) for label, text in entries])


def _resolution(analysis: dict[str, Any]) -> str:
    """Return the requested resolution, and the actual one if the run is too short for it."""
    asked = analysis["settings"]["resolution"]
    found = [s["fft"]["resolution"]["value"] for state in analysis["states"] for s in state["spectra"].values()]
    reached = f" requested, {max(found):.3g} cm⁻¹ reached" if found and max(found) > 1.01 * asked else ""
    return f"{asked:g} cm⁻¹{reached}"


def _replicas(state: dict[str, Any], seeds: list[int]) -> str:
    own = [str(seeds[k]) for k in state["replicas"]]
    return f"{state['label']} (seed{'s' if len(own) > 1 else ''} {', '.join(own)})"


def _structures(parts: dict[str, int] | None) -> str:
    return ", ".join(str(parts.get(part, 0)) for part in ("train", "validation", "test")) if parts else MISSING


def _unit_of(quantity: str, analysis: dict[str, Any]) -> str:
    kind = COMPARABLE[quantity]
    return {None: "", "d_tensor": analysis["unit"], "forces": "eV/A", "length": "A"}[kind]


def _reference_cell(given: dict[str, Any], unit: str) -> Cell:
    kind = COMPARABLE[given["quantity"]]
    factor = 1.0 if kind is None else conversion(kind, given["unit"])[0] / conversion(kind, unit)[0]
    bounds = given["value"] if isinstance(given["value"], list) else [given["value"]]
    return Cell(" to ".join(as_given(bounds, factor)), "", given)


def _own(
    analysis: dict[str, Any], quantity: str, temperature: float | None
) -> list[tuple[dict[str, Any] | None, dict[str, Any]]]:
    """Return the states that a reference value belongs to, each with the quantity of the run."""
    if quantity.startswith("training_"):
        metrics = analysis["training"].get("d_tensor", {}).get("metrics", {})
        errors = metrics.get("test", metrics.get("validation", {})).get("d_tensor")
        if errors is None:
            return []
        factor = conversion("d_tensor", errors["unit"])[0] / conversion("d_tensor", analysis["unit"])[0]
        measure = quantity.removeprefix("training_")
        return [(None, {"value": factor * errors[measure], "unit": analysis["unit"], "about": "error for test data"})]
    found = []
    for state in analysis["states"]:
        if temperature is None or state["target"]["value"] == temperature:
            entry = _entry(state, quantity)
            if entry is not None:
                found.append((state, entry))
    return found


def _entry(state: dict[str, Any], quantity: str) -> dict[str, Any] | None:
    if quantity.startswith("correlation_"):
        _, of, measure = quantity.split("_")
        correlations = state.get("structure", {}).get("correlations", [])
        return next((c for c in correlations if (c["of"], c["with"]) == (of, measure)), None)
    if quantity in ("distance", "order"):
        measures = state.get("structure", {}).get("measures", [])
        return next((m["mean"] for m in measures if m["name"] == quantity), None)
    if quantity.endswith("_deviation"):
        name = {"d_deviation": "d_tensor", "forces_deviation": "forces"}[quantity]
        entry = state["committee"].get(name, {}).get("mean")
        return entry and {key: value for key, value in entry.items() if key != "interval"}
    return state.get("anisotropy", {}).get(quantity)
