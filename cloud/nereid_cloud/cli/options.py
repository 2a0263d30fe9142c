# SPDX-License-Identifier: Apache-2.0
"""The options that every command shares: which cluster it speaks to. They may stand before or after the command."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from nereid_cloud.cli.problems import note
from nereid_cloud.cluster.port import Cluster
from nereid_cloud.laptop import statelock

_WITH_VALUE: Final = ("--state", "--kubeconfig", "--context")
_DEFAULT_STATE: Final = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "nereid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which cluster.

    Attributes:
        state: the state folder of a laptop's cluster.
        kubeconfig: the file of a cluster; where it is given, `state` does not matter.
        context: the context in that file, "" for its current one.
    """

    state: Path
    kubeconfig: Path | None = None
    context: str = ""

    @property
    def is_down(self) -> bool:
        """Whether a laptop's cluster is meant and its system is not up."""
        return self.kubeconfig is None and not statelock.is_held(self.state)


def read(
    ctx: typer.Context,
    state: Annotated[
        Path, typer.Option(envvar="NEREID_STATE_DIR", help="State folder of the cluster on this machine.")
    ] = _DEFAULT_STATE,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Speak to the cluster of this kubeconfig; $KUBECONFIG's without --state while no system is up."
        ),
    ] = None,
    context: Annotated[str, typer.Option(help="Context in the kubeconfig.")] = "",
) -> None:
    """Joint inference across edge and cloud: apply, watch and mend its resources."""
    folder = state.expanduser().absolute()
    if kubeconfig is not None:
        file: Path | None = kubeconfig.expanduser().absolute()
    elif context:
        file = _users_kubeconfig() or Path("~/.kube/config").expanduser()
    elif _is_given(ctx, "state") or statelock.is_held(folder):
        file = None
    else:
        file = _users_kubeconfig()
    ctx.obj = Options(state=folder, kubeconfig=file, context=context)


def _is_given(ctx: typer.Context, option: str) -> bool:
    # By name: some releases of typer bring a click of their own, whose enumeration is another type.
    source = ctx.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def _users_kubeconfig() -> Path | None:
    """Return what kubectl would read: one file, or several with colons between them."""
    named = os.environ.get("KUBECONFIG")
    return Path(named) if named else None


def options_of(ctx: typer.Context) -> Options:
    """Return the shared options that the user gave."""
    found = ctx.find_object(Options)
    if found is None:
        raise LookupError("the command runs outside the nereid application")
    return found


def cluster_of(ctx: typer.Context) -> Cluster:
    """Return the cluster that the user means; it closes when the command ends.

    Where it is a laptop's and its system is down, the user is told so on stderr.

    From here on Ctrl-C ends the process at once and quietly, as it ends kubectl: a command on a cluster has nothing
    to undo.

    Raises:
        UserError: there is none.
    """
    from nereid_cloud.cluster.opening import open_cluster  # noqa: PLC0415 - `nereid --help` needs no cluster

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    chosen = options_of(ctx)
    cluster = open_cluster(
        state=None if chosen.kubeconfig else chosen.state, kubeconfig=chosen.kubeconfig, context=chosen.context
    )
    ctx.call_on_close(cluster.close)
    if chosen.is_down:
        note("Warning: the system is not up, so nothing of this runs or changes: nereid up")
    return cluster


def arranged(arguments: Sequence[str], command: str, *, own: bool) -> list[str]:
    """Return the arguments as click takes them.

    The shared options move before the command, or right behind it where it has them of its `own`; ``--flag=false``
    becomes ``--no-flag``.
    """
    shared: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            rest += [word, *waiting]
            break
        name, equals, value = word.partition("=")
        if name in _WITH_VALUE:
            shared.append(word)
            if not equals and waiting:
                shared.append(waiting.pop(0))
        elif name.startswith("--") and value in {"true", "false"}:
            rest.append(name if value == "true" else f"--no-{name[2:]}")
        else:
            rest.append(word)
    if not own:
        return shared + rest
    place = rest.index(command) + 1
    return rest[:place] + shared + rest[place:]


def command_in(arguments: Sequence[str]) -> str:
    """Return the command among the arguments of the command line; "" where there is none."""
    words = iter(arguments)
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""
