# SPDX-License-Identifier: Apache-2.0
"""``nereid scale``: sets how many Pods there are."""

import sys
from typing import Annotated, Final

import typer

from nereid_cloud.cli.options import cluster_of
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, called, named_targets, ref
from nereid_cloud.cluster.kinds import DEPLOYMENT, INFERENCE_MODEL
from nereid_shared.errors import UserError

SCALABLE: Final = (INFERENCE_MODEL, DEPLOYMENT)
"""Kinds with ``spec.replicas``; a service's cloud workers have theirs in ``spec.cloudWorker.replicas``."""


def scale(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="KIND/NAME… or KIND NAME….")],
    replicas: Annotated[int, typer.Option("--replicas", min=0, help="How many.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = DEFAULT_NAMESPACE,
) -> None:
    """Set how many Pods of a model or a Deployment there are."""
    targets = named_targets(words)
    for target in targets:
        if target.kind not in SCALABLE:
            raise UserError(
                f"{target.kind.plural} cannot be scaled",
                where=target.kind.plural,
                mend='For a service: nereid patch jis/NAME -p \'{"spec": {"cloudWorker": {"replicas": 2}}}\'',
            )
    cluster = cluster_of(ctx)
    for target in targets:
        for name in target.names:
            cluster.patch(ref(target.kind, name, namespace), {"spec": {"replicas": replicas}})
            sys.stdout.write(f"{called(target.kind, name)} scaled\n")
            sys.stdout.flush()
