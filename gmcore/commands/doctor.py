"""Whether the installation works: `gmtensor doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from gmcore.commands.options import DeviceOption
from gmcore.errors import GMError

DOES_NOT_WORK = 1


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: DeviceOption = "cpu",
) -> None:
    """Check the installation and say what is missing.

    Computes the energy and forces of a tiny model on the CPU and, where one can be used, on the GPU, and compares them
    with plain NumPy. With --device cuda a GPU that cannot be used is an error. The exit code is 1 if something that
    should work does not.
    """
    from gmcore.evaluation.examination import examine

    if device not in ("cpu", "cuda"):
        raise GMError(f"--device must be cpu or cuda, got {device!r}")
    if not as_json:
        typer.echo("checking; the first time compiles kernels, which takes about a minute", err=True)
    found = examine(must_have_gpu=device == "cuda")
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(report_lines(found)))
    if found["problems"]:
        raise typer.Exit(DOES_NOT_WORK)


def report_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report on what `examine` found."""
    yield _line("gmtensor", f"{found['gmtensor']}, Python {found['python']}, {found['system']}")
    yield _line("packages", ", ".join(f"{name} {known or 'missing'}" for name, known in found["packages"].items()))
    for extra, about in found["extras"].items():
        have = ", ".join(f"{name} {known}" for name, known in about["packages"].items() if known)
        yield _line(about["purpose"], have if about["complete"] else _how_to_install(extra, about["packages"]))
    threads = found["threads"]
    layer = f", threading layer {threads['layer']}" if threads["layer"] else ""
    yield _line("threads", f"{threads['numba']} of {threads['cores']} cores{layer}")
    if threads["variables"]:
        yield _line("variables", ", ".join(f"{name}={value}" for name, value in threads["variables"].items()))
    for blas in found["blas"]:
        kernel = f", kernel for {blas['kernel']}" if blas["kernel"] else ""
        yield _line("BLAS", f"{blas['of']}: {blas['name']} {blas['version']}{kernel}, {blas['threads']} threads")
    cache = found["cache"]
    if cache["folder"] is None:
        yield _line("cache", "cannot be used, see below")
    else:
        older = f"; {_megabytes(cache['older'])} of older versions beside it may be removed" if cache["older"] else ""
        yield _line("cache", f"{cache['folder']}, writable, {_megabytes(cache['bytes'])}{older}")
    gpu = found["gpu"]
    yield _line("GPU", f"{gpu['name']}, {_megabytes(gpu['free_bytes'])} free" if gpu["usable"] else gpu["reason"])
    for device, test in found["self_test"].items():
        yield _line("self-test", f"{'CPU' if device == 'cpu' else 'GPU'}: {_of_test(test)}")
    yield ""
    yield from found["problems"] or ["everything that is installed works"]


def _of_test(test: dict[str, Any]) -> str:
    if "error" in test:
        return f"failed: {test['error']}"
    verdict = "passed" if test["passed"] else "FAILED"
    return (
        f"{verdict}, energy within {test['energy_error']:.1e} and forces within {test['forces_error']:.1e} of plain "
        f"NumPy; first call {test['first_s']:.1f} s"
    )


def _how_to_install(extra: str, packages: dict[str, str | None]) -> str:
    missing = ", ".join(name for name, known in packages.items() if known is None)
    other = " (CUDA 13: gmtensor[cuda13])" if extra == "cuda12" else ""
    return f"{missing} not installed: pip install 'gmtensor[{extra}]'{other}"


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.0f} MB"


def _line(name: str, text: str) -> str:
    return f"{name:20} {text}"
