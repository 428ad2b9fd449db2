"""What a reader sees first: the headline, the main results with their errors, and whether they can be trusted."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from gmcore.analysis.sections.trust import LEVELS, trust_lines
from gmcore.report.numbers import number, row_texts, unit_text

QUESTIONS = {
    "model_error": "error of the model",
    "extrapolation": "extrapolation",
    "temperature": "temperature",
    "length": "length of the run",
    "equilibration": "equilibration",
    "harmonic": "harmonic and sampled averages",
    "explained": "variance explained by the modes",
    "test_error": "test errors",
    "sign": "sign of D",
}
WORDS = {"green": "good", "amber": "caution", "red": "fails"}


class Answer(NamedTuple):
    """A line of the box: level, its word, what is judged, sentence with a number, and what to do."""

    level: str
    word: str
    question: str
    words: str
    advice: str


def answers(analysis: dict[str, Any]) -> list[Answer]:
    """Return the lines of the box, the worst first; analyses of older versions are judged now."""
    lines = analysis["trust"] if "trust" in analysis else trust_lines(analysis)
    unit = analysis["unit"]
    found = []
    for line in sorted(lines, key=lambda line: -LEVELS.index(line["level"])):
        words = line["words"].replace(unit, unit_text(unit)).replace("<D>", "⟨D⟩")
        words = re.sub(r"(?<![^\s(])-(?=\d)", "−", words)
        question = QUESTIONS.get(line["name"], line["name"])
        found.append(Answer(line["level"], WORDS[line["level"]], question, words, line["advice"]))
    return found


def headline(analysis: dict[str, Any]) -> str:
    """Return the title of the page; it says so if a line of the box is red."""
    has_tensors = any("anisotropy" in state for state in analysis["states"])
    title = "Thermally averaged magnetic anisotropy" if has_tensors else "Molecular dynamics"
    failed = any(answer.level == "red" for answer in answers(analysis))
    return f"Not reliable: {title[0].lower()}{title[1:]}" if failed else title


def lead(analysis: dict[str, Any]) -> str:
    """Return the main results in a few sentences."""
    run, states, unit = analysis["run"], analysis["states"], unit_text(analysis["unit"])
    failed = [answer.question for answer in answers(analysis) if answer.level == "red"]
    text = f"Do not use these results before the following is settled: {_listed(failed)}. " if failed else ""
    length = f"{run['duration']['value']:g}"
    count = f"{run['n_replicas']} replica{'s' if run['n_replicas'] != 1 else ''}"
    each = " each" if run["n_replicas"] != 1 else ""
    text += f"Molecular dynamics: {count} at {_listed([state['label'] for state in states])}, {length} ps{each}."
    known = [state for state in states if "anisotropy" in state]
    if known:
        first, last = known[0], known[-1]
        at = [(state["label"], state["anisotropy"]) for state in ([first, last] if first is not last else [first])]
        for name in "DE":
            entries = [section[name] for _, section in at]
            values = _listed(
                [
                    f"{text}\u00a0{unit} at {label}{_parts(entry)}"
                    for text, (label, _), entry in zip(row_texts(entries), at, entries)
                ]
            )
            widths = _listed(row_texts([section[f"{name}_width"] for _, section in at]))
            text += f" {name} is {values}, with a thermal width of {widths}\u00a0{unit}."
        if all(section[name].get("model") is None for _, section in at for name in "DE"):
            text += " Errors are those of sampling alone; the error of the model is not known."
        else:
            text += " ± of D and E is the total standard error, with its two parts in brackets."
    return text


def _parts(entry: dict[str, Any]) -> str:
    """Return both parts of a total error in brackets, nothing if the error of the model is not known."""
    if entry.get("model") is None or entry.get("error") is None:
        return ""
    return f" (sampling\u00a0{number(entry['error'], 2)}, model\u00a0{number(entry['model'], 2)})"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
