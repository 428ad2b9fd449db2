"""From a run to numbers with error bars: RUN/analysis.json.

    trajectory -> states (one temperature each, replicas pooled) -> averages, distributions, correlations, spectra
    models of the run -> harmonic modes, dD/dq; their training folders -> errors, learning curve, parity

Everything is a self-describing quantity or curve (`gmcore.analysis.records`); curves are thinned to what the report
draws. A result that the run cannot give, because something was not recorded or a file is gone, is explained by a
sentence under "missing" and raises no error. Settings that contradict the run do raise one. Paths are relative to the
folder of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from gmcore.analysis.couplings import TensorExpansion, expand_tensor
from gmcore.analysis.frames import body_frame
from gmcore.analysis.model_errors import KEY, ModelErrors, add_coupling_errors, model_errors
from gmcore.analysis.modes import Modes
from gmcore.analysis.records import ANALYSIS_FILE, FORMAT, SCHEMA, quantity, relative_paths, write_json
from gmcore.analysis.samples import Samples, discarded, states_of
from gmcore.analysis.sections import states as state_sections
from gmcore.analysis.sections.anisotropy import anisotropy_section
from gmcore.analysis.sections.calibration import calibrations, extrapolation
from gmcore.analysis.sections.modes import (
    along_run,
    describe_coupling,
    describe_modes,
    find_modes,
    harmonic_curves,
    harmonic_expectation,
    leading_modes,
    samples_of_crystal,
)
from gmcore.analysis.sections.run import CONFIG_FILE, run_config, run_facts
from gmcore.analysis.sections.spectra import tensor_spectra, velocity_spectra
from gmcore.analysis.sections.training import describe_model, training_results
from gmcore.analysis.sections.trust import trust_lines
from gmcore.analysis.spectra import SpectrumError
from gmcore.analysis.structure import Coordination, coordination, first_molecule, molecule_positions
from gmcore.config.analysis import Analysis
from gmcore.dynamics.trajectory import Trajectory
from gmcore.errors import GMError
from gmcore.model import Model, load_model
from gmcore.molecules.molecules import Molecules
from gmcore.units import conversion
from gmcore.version import __version__

SPECTRA = {"velocity": "The density of states", "d_tensor": "The spectrum of D"}


def analyze(
    run: str | Path, settings: Analysis | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Analyze a run, write RUN/analysis.json and return its content.

    Parameters
    ----------
    run : folder of the run.
    settings : taken from the run's configuration if not given.
    progress : called with a few words before each part.

    Returns
    -------
    The content of analysis.json.

    Raises
    ------
    TrajectoryError : if the folder holds no run.
    SamplesError : if the run is too short for the requested blocks and equilibration.
    SelectionError : if the settings name an atom that the molecule does not have.
    """
    run = Path(run)
    content = relative_paths(_Analysis(run, settings, progress or (lambda words: None)).content(), run)
    write_json(run / ANALYSIS_FILE, content)
    return content


class _Analysis:
    """What the parts of an analysis share."""

    def __init__(self, run: Path, settings: Analysis | None, progress: Callable[[str], None]):
        self.run, self.progress = run, progress
        self.trajectory = Trajectory(run)
        self.config = run_config(run)
        self.settings = settings or (self.config.analysis if self.config else Analysis())
        self.factor = 1.0 / conversion("d_tensor", self.settings.unit)[0]
        equilibrated = self.config is not None and self.config.equilibration > 0.0
        self.discard = discarded(self.trajectory, self.settings, equilibrated)
        self.missing: dict[str, str] = {}
        self.frame = body_frame(self.trajectory, self.config) if "d_tensor" in self.trajectory.names() else None
        if self.frame is None:
            self.missing["d_tensor"] = (
                "D was not computed along this run; this needs a section d_tensor in its configuration"
            )
        # the molecule is the whole structure, and rotates freely
        self.alone = self.frame is not None and self.trajectory.molecules.shape == (1, self.trajectory.n_atoms)
        self.alone = self.alone and not self.trajectory.pbc.any()
        self.shell = self._shell()
        self.models = self._load_models()
        self.errors: list[ModelErrors] = []

    def content(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        self.progress("harmonic modes")
        modes, expansion, described = self._modes()
        states = []
        for state in states_of(self.trajectory):
            self.progress(state.label)
            samples = Samples(self.trajectory, state, self.discard, self.settings.blocks)
            states.append(self._state(samples, modes, expansion))
        if described is not None and "coupling" in described and self.errors:
            add_coupling_errors(described["coupling"], self.errors[0])
        self.progress("training results of the models")
        content = {
            "format": FORMAT,
            "schema": SCHEMA,
            "gmtensor": __version__,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "run": run_facts(self.run, self.trajectory, self.config, self.discard),
            "settings": self.settings.model_dump(mode="json", exclude={"reference"}),
            "reference": self.settings.reference and self.settings.reference.model_dump(mode="json"),
            "unit": self.settings.unit,
            "frame": self.frame and self.frame.words,
            "calibration": calibrations({name: model for name, (_, model) in self.models.items()}),
            "states": states,
            "modes": described,
            "models": {name: describe_model(path) for name, (path, _) in self.models.items()},
            "training": {
                name: training_results(path, model, self.settings.unit if name == "d_tensor" else None)
                for name, (path, model) in self.models.items()
            },
            "molecule": self._molecule(modes),
            "missing": self.missing,
        }
        return content | {"trust": trust_lines(content)}

    def _load_models(self) -> dict[str, tuple[Path, Model]]:
        """Return path and model of each model of the run that can still be read."""
        if self.config is None:
            self.missing["models"] = f"The models of this run are unknown, because its folder has no {CONFIG_FILE}"
            return {}
        paths = {"potential": self.config.potential}
        if self.config.d_tensor is not None:
            paths["d_tensor"] = self.config.d_tensor.model
        found = {}
        for name, path in paths.items():
            try:
                found[name] = path, load_model(path, self.config.dtype)
            except (GMError, OSError) as error:
                self.missing[f"model_{name}"] = f"The model {path} cannot be used: {' '.join(str(error).split())}"
        return found

    def _exact(self, name: str) -> Model:
        """Return a model in double precision, which relaxation and second derivatives need."""
        return load_model(self.models[name][0], "float64")

    def _shell(self) -> Coordination | None:
        molecule = first_molecule(self.trajectory)
        if molecule is None:
            self.missing["structure"] = (
                "Distances and tetrahedral order around the metal need recorded positions. In a periodic run they also "
                "need molecules, which are known only if D was computed along the run"
            )
            return None
        shell = coordination(*molecule, self.settings)
        self.missing |= {f"structure_{name}": sentence for name, sentence in shell.missing.items()}
        return shell

    def _modes(self) -> tuple[Modes | None, TensorExpansion | None, dict[str, Any] | None]:
        """Return the modes, the expansion of D in them, and the section "modes"; each None if it cannot be computed."""
        asked, trajectory, settings = self.settings.modes, self.trajectory, self.settings
        sentence = None
        if asked is False:
            sentence = "Harmonic modes were switched off (modes: false)"
        elif asked is None and trajectory.pbc.any():
            sentence = "Harmonic modes of a crystal are computed only on request (modes: true)"
        elif self.config is None or "potential" not in self.models or "position" not in trajectory.names():
            sentence = "Harmonic modes need the potential of the run and recorded positions"
        elif self.config.fixed:
            sentence = "Harmonic modes of structures with fixed atoms are not supported"
        if sentence is None:
            order = trajectory.molecules[0] if self.alone else np.arange(trajectory.n_atoms)
            atoms = next(iter(trajectory.frames(0)))[order]
            reference = self.frame.reference if self.frame is not None and self.alone else None
            try:
                modes = find_modes(atoms, self._exact("potential"), settings, reference)
                described = describe_modes(modes)
                if self.frame is None or "d_tensor" not in self.models:
                    return modes, None, described
                part = None if self.alone else Molecules.from_indices(modes.atoms, trajectory.molecules[0])
                expansion = expand_tensor(self._exact("d_tensor"), modes, molecules=part)
            except GMError as error:
                sentence = f"Harmonic modes could not be computed: {' '.join(str(error).split())}"
            else:
                symbols = atoms.get_chemical_symbols()
                if expansion.left_out:
                    described["left_out"] = [f"{symbols[i]}{i}" for i in expansion.left_out]
                described["coupling"] = describe_coupling(expansion, self.factor, settings.unit)
                highest = np.nanmax([100.0, *trajectory.temperatures]) * 1.2
                described["thermal"] = harmonic_curves(expansion, float(highest), self.factor, settings.unit)
                if self.alone or self.frame.reference is None:
                    shown = np.arange(len(modes.atoms)) if self.alone else trajectory.molecules[0]
                    described["leading"] = leading_modes(modes, expansion, shown)
                return modes, expansion, described
        self.missing["modes"] = sentence
        return None, None, None

    def _molecule(self, modes: Modes | None) -> dict[str, Any] | None:
        """Return a structure of the molecule in the axes of D, None without D or a molecule."""
        found = first_molecule(self.trajectory)
        if self.frame is None or found is None:
            return None
        numbers, positions = found
        about = "first sample"
        if modes is not None and self.alone:
            positions, about = modes.atoms.positions, "relaxed structure"
        elif self.frame.reference is not None:
            positions, about = self.frame.reference, "structure onto which the molecule is aligned"
        return {
            "symbols": [chemical_symbols[z] for z in numbers],
            "positions": quantity(np.round(positions, 5), "A", f"positions in the axes of D: {about}"),
            "center": self.shell and self.shell.metal,
        }

    def _state(self, samples: Samples, modes: Modes | None, expansion: TensorExpansion | None) -> dict[str, Any]:
        """Everything that belongs to one temperature."""
        settings, state = self.settings, samples.state
        result: dict[str, Any] = {
            "label": state.label,
            "target": quantity(state.target, "K", "temperature of the thermostat"),
            "replicas": list(state.replicas),
            "thermodynamics": state_sections.thermodynamics(samples),
        }
        positions = molecule_positions(samples) if self.shell is not None else None
        tensors, members, errors = None, None, None
        scalars: dict[str, np.ndarray] = {}
        if self.frame is not None:
            tensors = self.factor * samples.molecules("d_tensor")
            if samples.together("d_tensor", "d_tensor_members"):
                members = self.factor * samples.molecules("d_tensor_members")
            tensors, members = self.frame.rotate(positions, tensors, members)
            errors = self._errors(samples, tensors, members)
            sections, scalars = anisotropy_section(samples, tensors, members, settings.unit, errors)
            result |= sections
        if self.shell is not None and positions is not None:
            result["structure"] = state_sections.structure(
                samples, self.shell, positions, scalars, settings.seed, members, errors
            )
            result["structure"]["points"] = state_sections.anisotropy_points(scalars, settings.unit)
        result["committee"] = state_sections.committee(samples, tensors, members, settings.unit)
        result["extrapolation"] = extrapolation(samples, {name: model for name, (_, model) in self.models.items()})
        result |= self._dynamics(samples, tensors, members, errors)
        if modes is not None and expansion is not None and tensors is not None:
            temperature = result["thermodynamics"].get("temperature", result["target"])["value"]
            result["modes"] = {"expected": harmonic_expectation(expansion, temperature, self.factor, settings.unit)}
            try:
                if self.alone and positions is not None:
                    series = positions, tensors / self.factor, samples.interval("d_tensor")
                else:
                    series = samples_of_crystal(samples)
                result["modes"] |= along_run(modes, expansion, *series, temperature, settings.resolution)
            except GMError as error:
                self.missing.setdefault(
                    "coherence", f"The coherence with the modes could not be computed: {' '.join(str(error).split())}"
                )
        return result

    def _errors(self, samples: Samples, tensors: np.ndarray, members: np.ndarray | None) -> ModelErrors | None:
        """Errors of the D model in a state; None, with the reason under "missing", if they are not known."""
        known = self.models[KEY][1].uncertainty.calibrations if KEY in self.models else {}
        sentence = None
        if KEY not in self.models:
            sentence = "the model cannot be read"
        elif KEY not in known:
            sentence = "the model file has no calibration of D; train it again, with labels for validation"
        elif members is None or members.shape[2] < 2:
            sentence = "the run was recorded by an earlier version, without members or draws of the model"
        if sentence is not None or members is None:
            self.missing["model_errors"] = f"Errors of the model of D are not known: {sentence}"
            return None
        grades = None
        if samples.together("d_tensor", "d_tensor_extrapolation"):
            grades = samples.pooled(samples.molecules("d_tensor_extrapolation"))
        errors = model_errors(samples.pooled(tensors), samples.pooled(members), known, grades, self.factor)
        self.errors.append(errors)
        return errors

    def _dynamics(
        self, samples: Samples, tensors: np.ndarray | None, members: np.ndarray | None, errors: ModelErrors | None
    ) -> dict[str, Any]:
        """Autocorrelation functions and spectra."""
        settings = self.settings
        correlations: dict[str, Any] = {}
        spectra: dict[str, Any] = {}
        if "velocity" in samples:
            correlations |= state_sections.velocity_correlation(samples, settings.max_lag)
            self._spectrum(spectra, "velocity", lambda: velocity_spectra(samples, settings))
        else:
            self.missing.setdefault(
                "velocity", "Velocities were not recorded (record.velocities in the configuration of the run)"
            )
        if tensors is not None:
            correlations |= state_sections.tensor_correlations(samples, tensors, settings.max_lag)
            self._spectrum(
                spectra,
                "d_tensor",
                lambda: tensor_spectra(samples, tensors, settings, settings.unit, members, errors),
            )
        return {"autocorrelations": correlations, "spectra": spectra}

    def _spectrum(self, spectra: dict[str, Any], name: str, make: Callable[[], dict[str, Any]]) -> None:
        try:
            spectra[name] = make()
        except SpectrumError as error:
            self.missing.setdefault(f"spectrum_{name}", f"{SPECTRA[name]} could not be computed: {error}")
