# SPDX-License-Identifier: Apache-2.0
"""Manifests that break one thing each, with the field that must be named: for predicates and API servers alike."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

DATASET: Object = {
    "apiVersion": "edgeai.io/v1alpha1",
    "kind": "Dataset",
    "metadata": {"name": "digits", "namespace": "default"},
    "spec": {"dataUrl": "/data/index.csv", "format": "csv", "nodeName": "edge-0"},
}
MODEL: Object = {
    "apiVersion": "edgeai.io/v1alpha1",
    "kind": "Model",
    "metadata": {"name": "little", "namespace": "default"},
    "spec": {"modelUrl": "/models/little.tflite", "format": "tflite", "sha256": "0" * 64},
}
_WORKER_SPEC: Object = {
    "scriptDir": "",
    "scriptBootFile": "builtin:classify",
    "frameworkType": "tflite",
    "frameworkVersion": "2",
}
SERVICE: Object = {
    "apiVersion": "neptune.io/v1alpha1",
    "kind": "JointInferenceService",
    "metadata": {"name": "digits", "namespace": "default"},
    "spec": {
        "edgeWorker": {
            "name": "edge",
            "model": {"name": "little"},
            "nodeSelector": {"nereid.io/role": "edge"},
            "dataset": {"labels": {"app": "digits"}},
            "deadline": "800ms",
            "outbox": {"keepFor": "30m", "maxBytes": "64Mi", "maxBytesPerSecond": "8k"},
            "hardExampleAlgorithm": {
                "name": "Margin",
                "budget": "0.2",
                "parameters": [{"key": "threshold", "value": "0.35"}],
            },
            "workerSpec": dict(_WORKER_SPEC),
        },
        "cloudWorker": {
            "name": "cloud",
            "model": {"name": "big"},
            "nodeName": "cloud",
            "replicas": 2,
            "batching": {"maxSize": 4, "maxWait": "2ms"},
            "workerSpec": dict(_WORKER_SPEC),
        },
    },
}
INFERENCE_MODEL: Object = {
    "apiVersion": "sedna.io/v1alpha1",
    "kind": "InferenceModel",
    "metadata": {"name": "digits", "namespace": "default"},
    "spec": {
        "modelName": "digits",
        "deployToLayer": "edge",
        "frameworkType": "tflite",
        "nodeName": "edge-0",
        "nodeSelector": {"kubernetes.io/hostname": "edge-0"},
        "manifest": [
            {"version": "3", "downloadURL": "https://host/digits_3.tar.gz", "sha256sum": "0" * 64},
            {"version": "4", "downloadURL": "/models/digits_4.tflite"},
        ],
        "targetVersion": "4",
        "servingPort": 8501,
        "replicas": 1,
        "batching": {"maxSize": 4, "maxWait": "2ms"},
    },
}
VALID = {"Dataset": DATASET, "Model": MODEL, "JointInferenceService": SERVICE, "InferenceModel": INFERENCE_MODEL}
_ALGORITHM = "spec.edgeWorker.hardExampleAlgorithm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A change to a valid manifest and the field that is refused for it.

    Attributes:
        values: what is set by path; None removes it.
        refused: the field that the API names; "" where the manifest stays valid.
        by_schema: whether the schema alone refuses it, before any rule.
    """

    name: str
    kind: str
    values: Object = field(default_factory=dict)
    refused: str = ""
    by_schema: bool = False

    def manifest(self) -> Object:
        """Return the changed manifest."""
        return changed(VALID[self.kind], self.values)


def changed(obj: Object, values: Object) -> Object:
    """Return a copy of an object with values set, or removed by None, at dotted paths."""
    result = deepcopy(obj)
    for path, value in values.items():
        *parents, last = path.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return result


def _service(name: str, values: Object, refused: str = "", *, by_schema: bool = False) -> Case:
    return Case(
        name=name,
        kind="JointInferenceService",
        values={f"spec.{path}": value for path, value in values.items()},
        refused=refused and f"spec{'.' if refused != '.' else ''}{refused.removeprefix('.')}",
        by_schema=by_schema,
    )


def _rule(name: str, key: str | None, value: str = "0.5", *, refused: bool) -> Case:
    parameters = [] if key is None else [{"key": key, "value": value}]
    return Case(
        name=f"{name} with {key}={value}",
        kind="JointInferenceService",
        values={f"{_ALGORITHM}.name": name, f"{_ALGORITHM}.parameters": parameters},
        refused=_ALGORITHM if refused else "",
    )


def _infm(name: str, values: Object, refused: str = "", *, by_schema: bool = False) -> Case:
    return Case(
        name=name,
        kind="InferenceModel",
        values={f"spec.{path}": value for path, value in values.items()},
        refused=refused and f"spec{'.' if refused != '.' else ''}{refused.removeprefix('.')}",
        by_schema=by_schema,
    )


def _file(**changes: Any) -> list[Object]:
    file: Object = {"version": "4", "downloadURL": "https://host/digits_4.tar.gz", **changes}
    return [{key: value for key, value in file.items() if value is not None}]


_EDGE, _CLOUD = "edgeWorker", "cloudWorker"
_TWICE = [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]

CASES: tuple[Case, ...] = (
    *(Case(name=f"a valid {kind}", kind=kind) for kind in VALID),
    Case(name="no sha256", kind="Model", values={"spec.sha256": None}),
    Case(name="no format of a model", kind="Model", values={"spec.format": None}),
    Case(
        name="sha256 in upper case",
        kind="Model",
        values={"spec.sha256": "A" * 64},
        refused="spec.sha256",
        by_schema=True,
    ),
    Case(name="relative modelUrl", kind="Model", values={"spec.modelUrl": "little.tflite"}, refused="spec.modelUrl"),
    Case(name="modelUrl by http", kind="Model", values={"spec.modelUrl": "https://host/little.tflite"}),
    Case(
        name="a model's metadata",
        kind="Model",
        values={
            "spec.task": "classification",
            "spec.labels": ["cat", "dog"],
            "spec.framework": "tflite",
            "spec.frameworkVersion": "2.14",
        },
    ),
    Case(
        name="a label without a name",
        kind="Model",
        values={"spec.labels": [""]},
        refused="spec.labels[0]",
        by_schema=True,
    ),
    Case(name="no modelUrl", kind="Model", values={"spec.modelUrl": None}, refused="spec.modelUrl", by_schema=True),
    Case(
        name="another host's file",
        kind="Model",
        values={"spec.modelUrl": "file://edge-1/m.tflite"},
        refused="spec.modelUrl",
    ),
    Case(name="a file of this host", kind="Model", values={"spec.modelUrl": "file://localhost/m.tflite"}),
    Case(name="relative dataUrl", kind="Dataset", values={"spec.dataUrl": "index.csv"}, refused="spec.dataUrl"),
    Case(name="empty format", kind="Dataset", values={"spec.format": ""}, refused="spec.format", by_schema=True),
    Case(
        name="a node name in upper case",
        kind="Dataset",
        values={"spec.nodeName": "Edge"},
        refused="spec.nodeName",
        by_schema=True,
    ),
    Case(name="no node", kind="Dataset", values={"spec.nodeName": None}, refused="spec.nodeName", by_schema=True),
    _service("a node by name", {f"{_EDGE}.nodeSelector": None, f"{_EDGE}.nodeName": "edge-0"}),
    _service("a node twice", {f"{_EDGE}.nodeName": "edge-0"}, _EDGE),
    _service("a node never", {f"{_EDGE}.nodeSelector": None}, _EDGE),
    _service("an empty selector", {f"{_EDGE}.nodeSelector": {}}, f"{_EDGE}.nodeSelector", by_schema=True),
    _service("no dataset", {f"{_EDGE}.dataset": None}),
    _service("an empty dataset", {f"{_EDGE}.dataset": {}}, f"{_EDGE}.dataset"),
    _service("a dataset twice", {f"{_EDGE}.dataset.name": "digits"}, f"{_EDGE}.dataset"),
    _service("equal worker names", {f"{_CLOUD}.name": "edge"}, "."),
    _service("a long deadline", {f"{_EDGE}.deadline": "1h1s"}, f"{_EDGE}.deadline"),
    _service("no time at all", {f"{_EDGE}.deadline": "0s"}, f"{_EDGE}.deadline"),
    _service("the longest deadline", {f"{_EDGE}.deadline": "59m60s"}),
    _service("the shortest deadline", {f"{_EDGE}.deadline": "1000us"}),
    _service("a deadline beyond count", {f"{_EDGE}.deadline": "99999999999999h"}, f"{_EDGE}.deadline"),
    _service("a deadline in words", {f"{_EDGE}.deadline": "soon"}, f"{_EDGE}.deadline", by_schema=True),
    _service("a deadline as a number", {f"{_EDGE}.deadline": 1}, f"{_EDGE}.deadline", by_schema=True),
    _service("no outbox", {f"{_EDGE}.outbox": None}),
    _service("an instant outbox", {f"{_EDGE}.outbox.keepFor": "10ms"}, f"{_EDGE}.outbox.keepFor"),
    _service("a size in words", {f"{_EDGE}.outbox.maxBytes": "lots"}, f"{_EDGE}.outbox.maxBytes", by_schema=True),
    _service("a wait of none", {f"{_CLOUD}.batching.maxWait": "0s"}),
    _service("a wait too long", {f"{_CLOUD}.batching.maxWait": "11s"}, f"{_CLOUD}.batching.maxWait"),
    _service("a batch of none", {f"{_CLOUD}.batching.maxSize": 0}, f"{_CLOUD}.batching.maxSize", by_schema=True),
    _service("a fraction of a replica", {f"{_CLOUD}.replicas": 1.5}, f"{_CLOUD}.replicas", by_schema=True),
    _service("no script", {f"{_EDGE}.workerSpec.scriptBootFile": "main.py"}, f"{_EDGE}.workerSpec"),
    _service(
        "a script of one's own",
        {f"{_EDGE}.workerSpec.scriptDir": "/code", f"{_EDGE}.workerSpec.scriptBootFile": "main.py"},
    ),
    _service(
        "a script outside",
        {f"{_EDGE}.workerSpec.scriptDir": "/code", f"{_EDGE}.workerSpec.scriptBootFile": "../main.py"},
        f"{_EDGE}.workerSpec",
    ),
    _service("a relative folder", {f"{_EDGE}.workerSpec.scriptDir": "code"}, f"{_EDGE}.workerSpec.scriptDir"),
    _service(
        "an unknown builtin",
        {f"{_CLOUD}.workerSpec.scriptBootFile": "builtin:detect"},
        f"{_CLOUD}.workerSpec.scriptBootFile",
    ),
    _service("a parameter twice", {f"{_CLOUD}.workerSpec.parameters": _TWICE}, f"{_CLOUD}.workerSpec.parameters"),
    _service(
        "a rule's parameter twice",
        {f"{_EDGE}.hardExampleAlgorithm.name": "Own", f"{_EDGE}.hardExampleAlgorithm.parameters": _TWICE},
        f"{_EDGE}.hardExampleAlgorithm.parameters",
    ),
    _service("a whole budget", {f"{_EDGE}.hardExampleAlgorithm.budget": "1.0"}),
    _service(
        "no budget at all",
        {f"{_EDGE}.hardExampleAlgorithm.budget": "0.0"},
        f"{_EDGE}.hardExampleAlgorithm.budget",
        by_schema=True,
    ),
    _service(
        "a budget as a number",
        {f"{_EDGE}.hardExampleAlgorithm.budget": 0.2},
        f"{_EDGE}.hardExampleAlgorithm.budget",
        by_schema=True,
    ),
    *(_rule("Threshold", "threshold", value, refused=False) for value in ("0", "0.5", "1", "1.00")),
    *(_rule("Threshold", "threshold", value, refused=True) for value in ("1.01", "-0.1", ".5", "5e-1", "half", "")),
    _rule("Threshold", "threshold_img", refused=True),
    _rule("CrossEntropy", "threshold_cross_entropy", refused=False),
    _rule("CrossEntropy", "threshold", refused=True),
    _rule("IBT", "threshold_img", refused=False),
    _rule("IBT", "threshold_box", refused=False),
    _rule("IBT", "threshold", refused=True),
    _rule("Margin", None, refused=False),
    _rule("Margin", "margin", refused=True),
    _rule("Random", "random_ratio", refused=False),
    _rule("Random", "ratio", refused=True),
    _rule("CloudOnly", None, refused=False),
    _rule("CloudOnly", "threshold", refused=True),
    _rule("EdgeOnly", "threshold", refused=True),
    _rule("Own", "anything", "goes", refused=False),
    *(
        Case(name=name, kind=kind, values={f"spec.{path}": value}, refused=f"spec.{path}", by_schema=True)
        for name, kind, path, value in (
            ("no bytes of sha256", "Model", "sha256", ""),
            ("half a sha256", "Model", "sha256", "a" * 32),
            ("a modelUrl that is a number", "Model", "modelUrl", 7),
            ("no dataUrl", "Dataset", "dataUrl", None),
            ("no format of a dataset", "Dataset", "format", None),
            ("a node name of 254", "Dataset", "nodeName", "a" * 254),
            ("no edge worker", "JointInferenceService", "edgeWorker", None),
            ("no cloud worker", "JointInferenceService", "cloudWorker", None),
            ("no model", "JointInferenceService", f"{_EDGE}.model", None),
            ("a model without a name", "JointInferenceService", f"{_EDGE}.model.name", None),
            ("a model's name in upper case", "JointInferenceService", f"{_CLOUD}.model.name", "Big"),
            ("a worker without a name", "JointInferenceService", f"{_EDGE}.name", None),
            ("a worker's name with a dot", "JointInferenceService", f"{_EDGE}.name", "edge.0"),
            ("a worker's name of 64", "JointInferenceService", f"{_CLOUD}.name", "a" * 64),
            ("no node in the cloud", "JointInferenceService", f"{_CLOUD}.nodeName", None),
            ("less than no replicas", "JointInferenceService", f"{_CLOUD}.replicas", -1),
            ("too many replicas", "JointInferenceService", f"{_CLOUD}.replicas", 1001),
            ("a batch too large", "JointInferenceService", f"{_CLOUD}.batching.maxSize", 257),
            ("an outbox for no samples", "JointInferenceService", f"{_EDGE}.outbox.maxSamples", 0),
            ("no attempt", "JointInferenceService", f"{_EDGE}.outbox.maxAttempts", 0),
            ("a rate in words", "JointInferenceService", f"{_EDGE}.outbox.maxBytesPerSecond", "8 kB/s"),
            ("no rule", "JointInferenceService", f"{_EDGE}.hardExampleAlgorithm", None),
            ("a rule without a name", "JointInferenceService", f"{_ALGORITHM[5:]}.name", None),
            ("a budget in percent", "JointInferenceService", f"{_ALGORITHM[5:]}.budget", "20%"),
            ("a budget above all", "JointInferenceService", f"{_ALGORITHM[5:]}.budget", "1.5"),
            ("nothing to run", "JointInferenceService", f"{_CLOUD}.workerSpec", None),
            ("no script folder", "JointInferenceService", f"{_EDGE}.workerSpec.scriptDir", None),
            ("no framework", "JointInferenceService", f"{_CLOUD}.workerSpec.frameworkType", None),
            ("an empty image", "JointInferenceService", f"{_CLOUD}.workerSpec.image", ""),
            ("an image's name of 256", "JointInferenceService", f"{_EDGE}.workerSpec.image", "a" * 256),
            ("an image that is a number", "JointInferenceService", f"{_EDGE}.workerSpec.image", 7),
        )
    ),
    _service("an outbox for more than a year", {f"{_EDGE}.outbox.keepFor": "9000h"}, f"{_EDGE}.outbox.keepFor"),
    _service(
        "a script by an absolute path",
        {f"{_EDGE}.workerSpec.scriptDir": "/code", f"{_EDGE}.workerSpec.scriptBootFile": "/code/main.py"},
        f"{_EDGE}.workerSpec",
    ),
    _service(
        "a ConfigMap without a name", {f"{_EDGE}.workerSpec.scriptDir": "configmap:"}, f"{_EDGE}.workerSpec.scriptDir"
    ),
    _service("an image of one's own", {f"{_EDGE}.workerSpec.image": "registry.example:5000/mine/worker:3"}),
    _service("the longest image's name", {f"{_CLOUD}.workerSpec.image": "a" * 255}),
    _service("scripts in a ConfigMap", {f"{_EDGE}.workerSpec.scriptDir": "configmap:scripts"}),
    _infm("an edge model by name alone", {"nodeSelector": None}),
    _infm("an edge model by labels alone", {"nodeName": ""}),
    _infm("an edge model nowhere", {"nodeName": "", "nodeSelector": {}}, "."),
    _infm("an edge model without a node", {"nodeName": None, "nodeSelector": None}, "."),
    _infm("a cloud model anywhere", {"deployToLayer": "cloud", "nodeName": None, "nodeSelector": None}),
    _infm("an image in place of a manifest", {"image": "host/mine:1", "manifest": None, "targetVersion": None}),
    _infm("an image besides a manifest", {"image": "host/mine:1"}),
    _infm("nothing to serve", {"image": "", "manifest": []}, "."),
    _infm("neither image nor manifest", {"manifest": None}, "."),
    _infm("a target that no manifest has", {"targetVersion": "5"}),
    _infm("no target", {"targetVersion": ""}),
    _infm("a version twice", {"manifest": [*_file(), *_file(downloadURL="/other.tflite")]}, "manifest"),
    _infm("the usual port", {"servingPort": 0}),
    _infm("no port given", {"servingPort": None}),
    _infm("no digest", {"manifest": _file(sha256sum="")}),
    _infm("a file's URL", {"manifest": _file(downloadURL="file:///models/digits.tflite")}),
    _infm("another host's file", {"manifest": _file(downloadURL="file://edge-1/a.tflite")}, "manifest"),
    _infm("no replicas", {"replicas": 0}),
    *(
        _infm(name, {path: value}, refused or path, by_schema=True)
        for name, path, value, refused in (
            ("no model name", "modelName", None, ""),
            ("a model name of two levels", "modelName", "a/b", ""),
            ("a model name of 64", "modelName", "a" * 64, ""),
            ("no layer", "deployToLayer", None, ""),
            ("a layer of fog", "deployToLayer", "fog", ""),
            ("no framework of a model", "frameworkType", None, ""),
            ("an empty framework", "frameworkType", "", ""),
            ("a node's name in upper case", "nodeName", "Edge", ""),
            ("labels that are a list", "nodeSelector", ["edge"], ""),
            ("a port below", "servingPort", -1, ""),
            ("a port above", "servingPort", 65536, ""),
            ("a port in words", "servingPort", "http", ""),
            ("fewer than no Pods", "replicas", -1, ""),
            ("too many Pods", "replicas", 1001, ""),
            ("a manifest that is a URL", "manifest", "https://host/digits.tflite", ""),
            ("a version without a name", "manifest", _file(version=None), "manifest[0].version"),
            ("a version that climbs", "manifest", _file(version=".."), "manifest[0].version"),
            ("a version of numbers", "manifest", _file(version=4), "manifest[0].version"),
            ("a version without a URL", "manifest", _file(downloadURL=None), "manifest[0].downloadURL"),
            ("a relative URL", "manifest", _file(downloadURL="digits.tflite"), "manifest[0].downloadURL"),
            ("a digest in upper case", "manifest", _file(sha256sum="A" * 64), "manifest[0].sha256sum"),
            ("a target that climbs", "targetVersion", "../4", ""),
            ("a model's image of 256", "image", "a" * 256, ""),
            ("a batch of no requests", "batching.maxSize", 0, ""),
        )
    ),
    _infm("a batch that waits too long", {"batching.maxWait": "1m"}, "batching.maxWait"),
)

# Pydantic lets them pass, for manifests of later versions; an API server and a LocalCluster do not.
UNKNOWN_FIELDS: tuple[Case, ...] = tuple(
    Case(name=name, kind=kind, values={f"spec.{path}": value}, refused=f"spec.{path}")
    for name, kind, path, value in (
        ("an unknown field of a model", "Model", "modelURL", "/models/little.tflite"),
        ("an unknown field of a dataset", "Dataset", "node", "edge-0"),
        ("a misspelt deadline", "JointInferenceService", f"{_EDGE}.deadLine", "1s"),
        ("an unknown field deep down", "JointInferenceService", f"{_CLOUD}.batching.size", 4),
        ("an unknown field of an InferenceModel", "InferenceModel", "nodename", "edge-0"),
    )
)
