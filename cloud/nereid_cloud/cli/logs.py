# SPDX-License-Identifier: Apache-2.0
"""``nereid logs``: what a Pod wrote, or all Pods of a service side by side."""

import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import typer

from nereid_cloud.cli.options import cluster_of, options_of
from nereid_cloud.cli.parts import is_part, part_lines
from nereid_cloud.cli.problems import FAILED, told
from nereid_cloud.cli.targets import DEFAULT_NAMESPACE, name_of, named_targets, ref
from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.port import Cluster, Object, Ref
from nereid_shared.errors import NereidError, NotFound, UserError


def logs(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(help="POD, jis/NAME, deploy/NAME; gm, lc/NODE, broker/NODE.")] = "",
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace.")] = DEFAULT_NAMESPACE,
    selector: Annotated[str, typer.Option("-l", "--selector", help="The Pods with these labels.")] = "",
    container: Annotated[str, typer.Option("-c", "--container", help="Container; the first if not given.")] = "",
    follow: Annotated[bool, typer.Option("-f", "--follow/--no-follow", help="Go on with what it writes.")] = False,
    tail: Annotated[int, typer.Option(help="Only the last lines; -1: all of them.")] = -1,
    previous: Annotated[bool, typer.Option("-p", "--previous/--no-previous", help="Of the run before this.")] = False,
    prefix: Annotated[bool, typer.Option("--prefix/--no-prefix", help="Begin each line with the Pod's name.")] = False,
) -> None:
    """Print what workers wrote, or on a laptop what a part of the system wrote."""
    if bool(target) == bool(selector):
        raise UserError("name a Pod, or give -l", mend="For instance: nereid logs jis/digits, or nereid logs -l app=x")
    chosen = options_of(ctx)
    if is_part(target) and not chosen.kubeconfig:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for text in part_lines(chosen.state, target, follow=follow, tail=None if tail < 0 else tail):
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        return
    cluster = cluster_of(ctx)
    pods = _pods(cluster, target, namespace, selector)

    def lines(pod: Ref) -> Iterator[str]:
        return cluster.logs(pod, container=container, follow=follow, tail=None if tail < 0 else tail, previous=previous)

    prefixed = prefix or len(pods) > 1
    if follow and len(pods) > 1:
        _follow_all(pods, lines)
        return
    code = 0
    for pod in pods:
        start = f"[pod/{pod.name}] " if prefixed else ""
        try:
            for text in lines(pod):
                sys.stdout.write(f"{start}{text.rstrip()}\n")
                sys.stdout.flush()
        except NereidError as error:
            # One Pod that has not started keeps nobody from the logs of the others.
            code = told(error)
    if code:
        raise typer.Exit(FAILED)


def _pods(cluster: Cluster, target: str, namespace: str, selector: str) -> list[Ref]:
    """Return the Pods that are meant.

    Raises:
        NotFound: there are none.
    """
    if selector:
        found = cluster.list(kinds.POD, namespace=namespace, labels=selector).items
    elif "/" not in target:
        found = [cluster.get(ref(kinds.POD, target, namespace))]
    else:
        (named,) = named_targets([target])
        found = _pods_of(cluster, cluster.get(ref(named.kind, named.names[0], namespace)), namespace)
    if not found:
        raise NotFound(f"no Pods of {selector or target} in {namespace} namespace")
    return [ref(kinds.POD, name, namespace) for name in sorted(map(name_of, found))]


def _pods_of(cluster: Cluster, obj: Object, namespace: str) -> list[Object]:
    """Return a Pod itself, or the Pods that an object owns: directly, and through its Deployments."""
    if obj["kind"] == "Pod":
        return [obj]
    pods = cluster.list(kinds.POD, namespace=namespace).items
    deployments = [obj] if obj["kind"] == "Deployment" else []
    deployments += [d for d in cluster.list(kinds.DEPLOYMENT, namespace=namespace).items if _owns(obj, d)]
    found = [pod for pod in pods if _owns(obj, pod)]
    # Not by owner: between a Deployment and its Pods a cluster has ReplicaSets, a laptop has none.
    found += [pod for pod in pods for each in deployments if _selects(each, pod)]
    return list({pod["metadata"]["uid"]: pod for pod in found}.values())


def _owns(owner: Object, obj: Object) -> bool:
    owners = obj["metadata"].get("ownerReferences") or ()
    return any(each.get("uid") == owner["metadata"]["uid"] for each in owners)


def _selects(deployment: Object, pod: Object) -> bool:
    wanted = deployment["spec"]["selector"].get("matchLabels") or {}
    labels = pod["metadata"].get("labels") or {}
    return bool(wanted) and wanted.items() <= labels.items()


def _follow_all(pods: Sequence[Ref], lines: Callable[[Ref], Iterator[str]]) -> None:
    """Print the lines of several Pods as they come, until each has ended."""
    arrived: queue.Queue[str | None] = queue.Queue(maxsize=1000)

    def read(pod: Ref) -> None:
        try:
            for text in lines(pod):
                arrived.put(f"[pod/{pod.name}] {text.rstrip()}\n")
        except NereidError as error:
            told(error)
        finally:
            arrived.put(None)

    for pod in pods:
        # Daemons: Ctrl-C ends the command, not the Pods' logs.
        threading.Thread(target=read, args=(pod,), name=f"logs-{pod.name}", daemon=True).start()
    left = len(pods)
    while left:
        text = arrived.get()
        if text is None:
            left -= 1
            continue
        sys.stdout.write(text)
        sys.stdout.flush()
