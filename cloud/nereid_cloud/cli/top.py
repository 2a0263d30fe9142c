# SPDX-License-Identifier: Apache-2.0
"""``nereid top``: the demo's live table for a service of the system that runs on this machine."""

import contextlib
import signal
import time
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live

from nereid_cloud.cli.options import cluster_of, options_of
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, name_of
from nereid_cloud.cluster.kinds import JOINT_INFERENCE_SERVICE
from nereid_cloud.cluster.port import Cluster, Ref
from nereid_cloud.demo.live import LiveTable
from nereid_cloud.demo.view import Lookout
from nereid_cloud.laptop.system import System
from nereid_shared.errors import UserError

EVERY_S: Final = 0.5
SAMPLE_S: Final = 1.0
_PLAIN_WIDTH: Final = 200


def top(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The service; not needed where there is one.")] = "",
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = DEFAULT_NAMESPACE,
    once: Annotated[bool, typer.Option("--once", help="Print the table once, as it is off a terminal.")] = False,
) -> None:
    """Show a service live: a row per node, until Ctrl-C."""
    if options_of(ctx).kubeconfig:
        raise UserError("it reads the folders of a system on this machine", mend="Use nereid get jis -w on a cluster")
    cluster = cluster_of(ctx)
    system = System.load(options_of(ctx).state)
    ref = _service(cluster, name.rpartition("/")[2], namespace)
    cluster.get(ref)
    lookout, table = Lookout(system, cluster, ref, nodes=system.nodes), LiveTable()
    console = Console()
    if once or not console.is_terminal:
        # Rates are since the look before.
        table.of(lookout.view(ref.name), width=_PLAIN_WIDTH)
        time.sleep(SAMPLE_S)
        Console(width=_PLAIN_WIDTH).print(table.of(lookout.view(ref.name), width=_PLAIN_WIDTH))
        return
    # Not as for other commands: the table has hidden the cursor, and gives it back.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(table.of(lookout.view(ref.name), width=console.width), refresh=True)
            time.sleep(EVERY_S)


def _service(cluster: Cluster, name: str, namespace: str) -> Ref:
    kind = JOINT_INFERENCE_SERVICE
    if not name:
        names = sorted(map(name_of, cluster.list(kind, namespace=namespace).items))
        if len(names) != 1:
            there = f"There are {', '.join(names)}" if names else "Apply one: nereid apply -f FILE"
            raise UserError("name the service", where="NAME", mend=there)
        (name,) = names
    return Ref(kind=kind, name=name, namespace=namespace)
