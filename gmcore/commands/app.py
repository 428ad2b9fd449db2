"""The command line `gmtensor`.

Everything heavy is imported inside the commands, so that `gmtensor --help` answers at once. An error that the user
can mend is one sentence on stderr and exit code 2; `gmtensor --debug COMMAND` shows where it came from.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gmcore.commands import analysis, configuration, dynamics, exchange, models, modes, training, workflow
from gmcore.commands.options import USER_ERROR


class _Commands(TyperGroup):
    """Turns errors of the user into one sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # "gmtensor schema | head" is no error
            raise
        except (ValueError, OSError) as error:  # GMError is a ValueError
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(USER_ERROR) from None


app = typer.Typer(
    cls=_Commands,
    help="Gaussian-moment models: potentials, charges and magnetic anisotropy tensors.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="gmtensor")


def _show_version(wanted: bool) -> None:
    if wanted:
        from gmcore.version import __version__

        typer.echo(f"gmtensor {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


COMMANDS = {
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
    "analyze": analysis.analyze,
    "report": analysis.report,
    "modes": modes.modes,
    "import": exchange.import_tensors,
    "export": modes.export_tensors,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
