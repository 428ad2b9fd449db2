"""The command line `gmtensor`.

Large packages are imported inside the commands, so that `gmtensor --help` answers at once. An error that the user can
fix is one sentence on stderr with exit code 2; `gmtensor --debug COMMAND` shows the traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gmcore.commands import (
    analysis,
    configuration,
    doctor,
    dynamics,
    engines,
    exchange,
    labeling,
    models,
    modes,
    selection,
    training,
    workflow,
)
from gmcore.commands.console import never_fail_on_encoding
from gmcore.commands.options import USER_ERROR


class _Commands(TyperGroup):
    """Group of commands that reports user errors in one sentence."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; print an expected error instead of raising it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # as in "gmtensor schema | head", which is not an error
            raise
        except (ValueError, OSError) as error:  # GMError is a ValueError
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(USER_ERROR) from None
        except MemoryError as error:
            if ctx.params.get("debug"):
                raise
            reason = " ".join(str(error).split())[:200]
            typer.echo(
                f"error: this needs more memory than the machine has left{f' ({reason})' if reason else ''}: "
                "use a smaller input or smaller batches",
                err=True,
            )
            raise typer.Exit(USER_ERROR) from None


app = typer.Typer(
    cls=_Commands,
    help="Machine-learned potentials, charges and magnetic anisotropy (D) tensors.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the console script."""
    never_fail_on_encoding()
    app(prog_name="gmtensor")


def _show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        from gmcore.version import __version__

        typer.echo(f"gmtensor {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Accept the options that precede the command."""


COMMANDS: dict[str, Callable[..., None]] = {
    "run": workflow.run,
    "template": configuration.template,
    "validate": configuration.validate,
    "schema": configuration.schema,
    "train": training.train,
    "learning-curve": training.learning_curve,
    "evaluate": models.evaluate,
    "predict": models.predict,
    "info": models.info,
    "md": dynamics.md,
    "convert": dynamics.convert,
    "lammps": engines.lammps,
    "ipi": engines.ipi,
    "select": selection.select,
    "analyze": analysis.analyze,
    "report": analysis.report,
    "modes": modes.modes,
    "label": labeling.label,
    "import": exchange.import_tensors,
    "export": modes.export_tensors,
    "doctor": doctor.doctor,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
