# SPDX-License-Identifier: Apache-2.0
"""An evaluation: a Pod beside the data runs the model over it, and its figures become the Model's metrics."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster, Object
from nereid_cloud.gm import podparts
from nereid_cloud.gm.paths import dataset_path, model_folder
from nereid_shared.errors import NereidError, UserError

COMPONENT: Final = {"app.kubernetes.io/part-of": "nereid", "app.kubernetes.io/component": "evaluation"}
RESULT: Final = "/dev/termination-log"
CONTAINER: Final = "evaluate"
_STUCK: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an evaluation found.

    Attributes:
        metrics: by name, decimal strings.
        digest: sha256 of the model file that was run.
        samples, unlabelled: samples that were looked at, and how many of them had no class.
        failed: samples without an answer, by reason.
    """

    metrics: dict[str, str]
    digest: str
    samples: int
    unlabelled: int
    failed: dict[str, int]


def pod(model: Object, dataset: Object, *, image: str, limit: int | None) -> Object:
    """Return the Pod, for the dataset's node and with nothing but the two mounted."""
    spec, data = model["spec"], dataset["spec"]
    limited = [] if limit is None else ["--limit", str(limit)]
    mounted = [podparts.data([path for path in (model_folder(model),) if path], [dataset_path(dataset)])]
    mounted.append(podparts.temporary())
    container = {
        "name": CONTAINER,
        "image": image,
        "command": ["python", "-m", "nereid_worker.evaluate"],
        "args": [
            "--model", spec["modelUrl"], "--model-format", spec.get("format", ""),
            "--sha256", spec.get("sha256") or "", "--data", data["dataUrl"], "--format", data["format"],
            "--result", RESULT, *limited,
        ],
        "env": [{"name": "TMPDIR", "value": podparts.TEMPORARY}],
        "volumeMounts": [mount for _, mounts in mounted for mount in mounts],
        "securityContext": podparts.rights(),
        "terminationMessagePath": RESULT,
    }  # fmt: skip
    metadata = {
        "name": f"evaluate-{model['metadata']['name'][:40]}-{secrets.token_hex(4)}",
        "namespace": model["metadata"]["namespace"],
        "labels": dict(COMPONENT),
    }
    volumes = [volume for volumes, _ in mounted for volume in volumes]
    body = {**podparts.edge_spec(data["nodeName"]), "restartPolicy": "Never", "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**body, "containers": [container]}}


def is_over(obj: Object) -> bool:
    """Whether a Pod has ended, or cannot begin without somebody's help."""
    return (obj.get("status") or {}).get("phase") in {"Succeeded", "Failed"} or bool(_stuck(obj))


def outcome_of(obj: Object) -> Outcome:
    """Return what a Pod that is over has found.

    Raises:
        UserError: something that the user gave is wrong.
        NereidError: it ended without an outcome.
    """
    if said := _stuck(obj):
        raise NereidError(f"Pod {obj['metadata']['name']} cannot start: {said}")
    for status in (obj.get("status") or {}).get("containerStatuses") or ():
        ended = (status.get("state") or {}).get("terminated") or {}
        try:
            found = json.loads(ended.get("message", ""))
            if ended["exitCode"] == 0:
                return Outcome(**found)
        except (TypeError, ValueError):
            said = f"{ended.get('reason', '')} {ended.get('message', '')}".strip()
            raise NereidError(f"the evaluation ended with {ended.get('exitCode')}: {said}") from None
        if ended["exitCode"] == 2:
            raise UserError(found["message"], reason=found["reason"])
        raise NereidError(f"{found['reason']}: {found['message']}")
    raise NereidError(f"Pod {obj['metadata']['name']} is gone from its node")


def record(cluster: Cluster, model: Object, outcome: Outcome, *, dataset: str) -> Object:
    """Write the figures into the Model's ``status.metrics``, beside those that are not an evaluation's."""
    fresh = cluster.get(ref_of(model))
    if fresh["metadata"]["uid"] != model["metadata"]["uid"]:
        raise NereidError("the Model was deleted meanwhile")
    figures = {**outcome.metrics, "dataset": dataset, "evaluatedDigest": outcome.digest}
    kept = [one for one in (fresh.get("status") or {}).get("metrics") or () if one["key"] not in figures]
    metrics = [*({"key": key, "value": value} for key, value in figures.items()), *kept]
    patch = {
        "metadata": {"resourceVersion": fresh["metadata"]["resourceVersion"]},
        "status": {"metrics": metrics},
    }
    return cluster.patch(ref_of(model), patch, subresource="status")


def metrics_of(model: Mapping[str, Any]) -> dict[str, str]:
    """Return a Model's ``status.metrics`` by key."""
    return {one["key"]: one["value"] for one in (model.get("status") or {}).get("metrics") or ()}


def _stuck(obj: Object) -> str:
    for status in (obj.get("status") or {}).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK | {"FailedMount"}:
            return f"{waiting['reason']}: {waiting.get('message', '')}"
    return ""
