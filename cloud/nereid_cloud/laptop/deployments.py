# SPDX-License-Identifier: Apache-2.0
"""Carries out Deployments: the right number of Pods of the right template, replaced a few at a time.

It stands for Kubernetes' Deployment and ReplicaSet controllers on a LocalCluster: a Deployment owns its Pods itself,
and the label ``pod-template-hash`` says of which template each is.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.laptop.reconciling import reconcile_on_changes
from nereid_shared.errors import Conflict, NotFound
from nereid_shared.times import rfc3339

TEMPLATE_HASH: Final = "pod-template-hash"
_FIRST_DELAY_S: Final = 1.0
_LONGEST_DELAY_S: Final = 30.0

logger = logging.getLogger(__name__)


def run(cluster: Cluster, stop: threading.Event) -> None:
    """Carry out Deployments until `stop` is set."""
    controller = DeploymentController(cluster)
    reconcile_on_changes(cluster, (kinds.DEPLOYMENT, kinds.POD), controller.reconcile, stop=stop, every_s=1.0)


@dataclass(slots=True)
class _BackOff:
    """When a Deployment whose Pods fail may have the next one."""

    delay_s: float = 0.0
    until: float = 0.0
    failed: set[str] = field(default_factory=set)

    def note(self, failed: list[Object], *, at: float) -> None:
        fresh = {pod["metadata"]["uid"] for pod in failed} - self.failed
        if fresh:
            self.failed |= fresh
            self.delay_s = min(max(2 * self.delay_s, _FIRST_DELAY_S), _LONGEST_DELAY_S)
            self.until = at + self.delay_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What is there for one Deployment.

    Attributes:
        desired: the number of Pods that there shall be.
        surge: how many more there may be meanwhile.
        unavailable: how many fewer may be ready meanwhile.
        current: living Pods of the present template.
        old: living Pods of earlier ones.
        ending: Pods that are being deleted.
    """

    desired: int
    surge: int
    unavailable: int
    current: tuple[Object, ...]
    old: tuple[Object, ...]
    ending: int = 0
    recreate: bool = False

    def missing(self) -> int:
        """The number of Pods to create now."""
        if self.recreate and (self.old or self.ending):
            return 0
        total = len(self.current) + len(self.old)
        return max(0, min(self.desired - len(self.current), self.desired + self.surge - total))

    def superfluous(self) -> Iterator[Object]:
        """Yield the Pods to delete now: the ones that are not ready first, then the youngest."""
        ordered = sorted(self.current, key=lambda pod: (is_ready(pod), _age(pod)))
        yield from ordered[: max(0, len(self.current) - self.desired)]
        if self.recreate or self.desired == 0:
            yield from self.old
            return
        # A Pod that is not ready serves nobody: it may go as soon as it is of an old template.
        yield from (pod for pod in self.old if not is_ready(pod))
        ready = sum(map(is_ready, (*self.current, *self.old)))
        spare = max(0, ready - (self.desired - self.unavailable))
        yield from [pod for pod in self.old if is_ready(pod)][:spare]


class DeploymentController:
    """Reconciles every Deployment with its Pods."""

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._clock = cluster, clock
        self._back_offs: dict[str, _BackOff] = {}

    def reconcile(self) -> None:
        """Bring every Deployment one step nearer to its spec, and its status up to date."""
        deployments = self._cluster.list(kinds.DEPLOYMENT).items
        pods: dict[str, list[Object]] = {}
        for pod in self._cluster.list(kinds.POD).items:
            for owner in pod["metadata"].get("ownerReferences") or ():
                pods.setdefault(owner["uid"], []).append(pod)
        for deployment in deployments:
            if "deletionTimestamp" not in deployment["metadata"]:
                self._reconcile(deployment, pods.get(deployment["metadata"]["uid"], []))
        present = {deployment["metadata"]["uid"] for deployment in deployments}
        self._back_offs = {uid: held for uid, held in self._back_offs.items() if uid in present}

    def _reconcile(self, deployment: Object, pods: list[Object]) -> None:
        ended = [pod for pod in pods if phase_of(pod) in {"Failed", "Succeeded"}]
        back_off = self._back_offs.setdefault(deployment["metadata"]["uid"], _BackOff())
        back_off.note([pod for pod in ended if phase_of(pod) == "Failed"], at=self._clock())
        digest = template_hash(deployment)
        rollout = _rollout(deployment, digest, [pod for pod in pods if pod not in ended])
        for pod in (*ended, *rollout.superfluous()):
            if "deletionTimestamp" not in pod["metadata"]:
                self._delete(pod)
        if any(map(is_ready, rollout.current)):
            back_off.delay_s = 0.0
        if self._clock() >= back_off.until:
            for _ in range(rollout.missing()):
                made = self._cluster.create(_pod(deployment, digest))
                logger.info("pod created", extra=_named(made))
        self._write_status(deployment, rollout)

    def _delete(self, pod: Object) -> None:
        try:
            self._cluster.delete(ref_of(pod), uid=pod["metadata"]["uid"])
            logger.info("pod deleted", extra=_named(pod))
        except (NotFound, Conflict):
            logger.debug("pod was gone", extra=_named(pod))

    def _write_status(self, deployment: Object, rollout: Rollout) -> None:
        status = _status(deployment, rollout)
        if status != deployment.get("status"):
            # What the status no longer has must be named to vanish by a merge patch.
            dropped = dict.fromkeys(deployment.get("status", {}).keys() - status.keys())
            self._cluster.patch(ref_of(deployment), {"status": dropped | status}, subresource="status")


def template_hash(deployment: Object) -> str:
    """Return the label's value for Pods of the present template."""
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def phase_of(pod: Object) -> str:
    """Return a Pod's phase."""
    return str((pod.get("status") or {}).get("phase", ""))


def _age(pod: Object) -> tuple[str, str]:
    # The youngest first: with equal seconds, by name, so that every turn chooses the same.
    return "".join(chr(255 - ord(c)) for c in pod["metadata"]["creationTimestamp"]), pod["metadata"]["name"]


def _named(obj: Object) -> dict[str, str]:
    return {"namespace": obj["metadata"]["namespace"], "pod": obj["metadata"]["name"]}


def _rollout(deployment: Object, digest: str, pods: list[Object]) -> Rollout:
    spec = deployment["spec"]
    desired, strategy = spec["replicas"], spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), desired, up=True)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), desired, up=False)
    living = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    current = [pod for pod in living if (pod["metadata"].get("labels") or {}).get(TEMPLATE_HASH) == digest]
    return Rollout(
        desired=desired,
        surge=surge,
        # With neither, nothing could ever be replaced.
        unavailable=unavailable if surge or unavailable else 1,
        current=tuple(current),
        old=tuple(pod for pod in living if pod not in current),
        ending=len(pods) - len(living),
        recreate=strategy.get("type") == "Recreate",
    )


def _share(value: int | str, whole: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%"))
    return -(-whole * percent // 100) if up else whole * percent // 100


def _pod(deployment: Object, digest: str) -> Object:
    metadata, template = deployment["metadata"], deployment["spec"]["template"]
    asked: Mapping[str, Any] = template.get("metadata") or {}
    owner = {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{metadata['name']}-{digest}-",
            "namespace": metadata["namespace"],
            "labels": {**(asked.get("labels") or {}), TEMPLATE_HASH: digest},
            "annotations": dict(asked.get("annotations") or {}),
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def _status(deployment: Object, rollout: Rollout) -> dict[str, Any]:
    pods = (*rollout.current, *rollout.old)
    ready = sum(map(is_ready, pods))
    enough = ready >= rollout.desired - rollout.unavailable
    done = not rollout.old and len(rollout.current) == rollout.desired and ready == rollout.desired
    counts = {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": len(pods),
        "updatedReplicas": len(rollout.current),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, rollout.desired - ready),
    }
    before = {item["type"]: item for item in deployment.get("status", {}).get("conditions", ())}
    conditions = [
        _condition(
            before,
            "Available",
            status="True" if enough else "False",
            reason="MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            message=f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        ),
        _condition(
            before,
            "Progressing",
            status="True",
            reason="NewReplicaSetAvailable" if done else "ReplicaSetUpdated",
            message="All Pods are of the present template." if done else "Pods are being replaced.",
        ),
    ]
    # As in Kubernetes a count of nothing is left out.
    return {key: value for key, value in counts.items() if value} | {"conditions": conditions}


def _condition(
    before: Mapping[str, dict[str, Any]], kind: str, *, status: str, reason: str, message: str
) -> dict[str, Any]:
    old = before.get(kind, {})
    said = {"type": kind, "status": status, "reason": reason, "message": message}
    if old and said == {key: old.get(key) for key in said}:
        return old
    at = rfc3339()
    return {
        **said,
        "lastUpdateTime": at,
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == status else at,
    }
