# SPDX-License-Identifier: Apache-2.0
"""``nereid evaluate``: measures a Model on a Dataset, on the node that owns the data."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Final

import typer

from nereid_cloud import evaluation
from nereid_cloud.cli.delete import seconds
from nereid_cloud.cli.follow import changes
from nereid_cloud.cli.options import cluster_of, options_of
from nereid_cloud.cli.problems import note
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, ref
from nereid_cloud.cluster.kinds import DATASET, MODEL, POD, ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_shared.errors import Conflict, NereidError, NotFound, UserError

LAPTOPS_IMAGE: Final = "nereid-worker"
_TRIES: Final = 5


def evaluate(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="The Model's name.")],
    dataset: Annotated[str, typer.Option("--dataset", help="The Dataset's name; its samples need their classes.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace of both.")] = DEFAULT_NAMESPACE,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Samples; all of them if not given.")] = None,
    image: Annotated[str, typer.Option("--image", help="On a cluster: the worker's image.")] = "",
    timeout: Annotated[str, typer.Option(help="How long to wait, such as 10m.")] = "10m",
    output: Annotated[str, typer.Option("-o", "--output", help="table|json")] = "table",
) -> None:
    """Run a model over a labelled dataset and write what it is worth into the Model's status.metrics."""
    if output not in {"table", "json"}:
        raise UserError(f"{output!r} is no output", where="-o", mend="Use table or json")
    end = time.monotonic() + seconds(timeout)
    cluster = cluster_of(ctx)
    if options_of(ctx).kubeconfig is not None and not image:
        raise UserError("the worker's image is needed on a cluster", where="--image", mend="Name it; see images/README")
    measured, data = cluster.get(ref(MODEL, model, namespace)), cluster.get(ref(DATASET, dataset, namespace))
    wanted = evaluation.pod(measured, data, image=image or LAPTOPS_IMAGE, limit=limit)
    with _running(cluster, wanted) as pod:
        if sys.stderr.isatty():
            note(f"Pod {pod['metadata']['name']} evaluates on node {pod['spec']['nodeName']}")
        outcome = evaluation.outcome_of(_until_over(cluster, pod, end))
    _record(cluster, measured, outcome, dataset=dataset)
    if output == "json":
        sys.stdout.write(json.dumps(asdict(outcome), indent=1) + "\n")
    else:
        sys.stdout.writelines(f"{name:<14}{value}\n" for name, value in outcome.metrics.items())
    if outcome.failed or outcome.unlabelled:
        reasons = ", ".join(f"{count} {reason}" for reason, count in outcome.failed.items()) or "none"
        note(f"of {outcome.samples} samples {outcome.unlabelled} have no class; failed: {reasons}")


@contextlib.contextmanager
def _running(cluster: Cluster, pod: Object) -> Iterator[Object]:
    created = cluster.create(pod)
    try:
        yield created
    finally:
        with contextlib.suppress(NotFound):
            cluster.delete(ref_of(created), uid=created["metadata"]["uid"])


def _until_over(cluster: Cluster, pod: Object, end: float) -> Object:
    metadata = pod["metadata"]
    fields = f"metadata.name={metadata['name']}"
    last = pod
    left_s = end - time.monotonic()
    for batch in changes(cluster, POD, namespace=metadata["namespace"], fields=fields, timeout_s=left_s):
        for event in batch:
            if event.type == "DELETED":
                raise NereidError(f"Pod {metadata['name']} was deleted")
            last = event.object
        if evaluation.is_over(last):
            return last
    raise NereidError(
        f"not done in time, Pod {metadata['name']} is {(last.get('status') or {}).get('phase', 'Pending')}"
    )


def _record(cluster: Cluster, model: Object, outcome: evaluation.Outcome, *, dataset: str) -> None:
    """Write the figures; the GlobalManager may write the same status at this moment."""
    for left in reversed(range(_TRIES)):
        try:
            evaluation.record(cluster, model, outcome, dataset=dataset)
        except Conflict:
            if not left:
                raise
        else:
            return
