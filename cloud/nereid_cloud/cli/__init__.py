# SPDX-License-Identifier: Apache-2.0
"""The nereid command: kubectl's words, flags and columns over a laptop's state folder or a cluster alike.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 it did not work, 2 the user can mend it. Only the
module of the command that was typed is imported: `nereid get` does not wait for what `nereid demo` needs.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import typer

from nereid_cloud.cli import options
from nereid_cloud.cli.problems import reported

# Command -> module:attribute, a function or a typer.Typer with commands of its own.
COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "apply": "nereid_cloud.cli.apply:apply",
        "get": "nereid_cloud.cli.get:get",
        "describe": "nereid_cloud.cli.describe:describe",
        "explain": "nereid_cloud.cli.explain:explain",
        "diff": "nereid_cloud.cli.diff:diff",
        "edit": "nereid_cloud.cli.edit:edit",
        "patch": "nereid_cloud.cli.patch:patch",
        "scale": "nereid_cloud.cli.scale:scale",
        "delete": "nereid_cloud.cli.delete:delete",
        "logs": "nereid_cloud.cli.logs:logs",
        "top": "nereid_cloud.cli.top:top",
        "wait": "nereid_cloud.cli.wait:wait",
        "events": "nereid_cloud.cli.events:events",
        "demo": "nereid_cloud.cli.demo:demo",
        "datasets": "nereid_cloud.cli.datasets:datasets",
        "evaluate": "nereid_cloud.cli.evaluate:evaluate",
        "models": "nereid_cloud.cli.models:models",
        "new": "nereid_cloud.cli.new:new",
        "certs": "nereid_cloud.cli.certs:certs",
        "uninstall": "nereid_cloud.cli.uninstall:uninstall",
        "up": "nereid_cloud.cli.up:up",
        "down": "nereid_cloud.cli.up:down",
        "link": "nereid_cloud.cli.up:link",
        "version": "nereid_cloud.cli.version:version",
    }
)


def assemble(names: Sequence[str] = tuple(COMMANDS)) -> typer.Typer:
    """Return the application with the commands of those names."""
    app = typer.Typer(
        name="nereid", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.callback()(options.read)
    for name in names:
        member = _member(name)
        if isinstance(member, typer.Typer):
            app.add_typer(member, name=name)
        else:
            app.command(name)(member)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that was typed and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    word = options.command_in(given)
    with reported():
        app = assemble((word,)) if word in COMMANDS else assemble()
        own = word in COMMANDS and "state" in inspect.signature(_member(word)).parameters
        typer.main.get_command(app)(args=options.arranged(given, word, own=own), prog_name="nereid")


def _member(name: str) -> Any:
    module, _, attribute = COMMANDS[name].partition(":")
    return getattr(import_module(module), attribute)
