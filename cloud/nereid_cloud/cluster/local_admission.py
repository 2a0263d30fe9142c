# SPDX-License-Identifier: Apache-2.0
"""What an API server does to an object between a request and the store: defaults, checks, system fields.

Pure functions of the request, the stored object and the schema; refusals are in the API server's words.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from nereid_cloud.cluster import builtin, kinds, schema
from nereid_cloud.cluster.local_store import new_uid
from nereid_cloud.cluster.ownership import ListKeys, builtin_list_keys, schema_list_keys
from nereid_cloud.cluster.port import Kind, Object
from nereid_shared.errors import Conflict, FieldCause, Invalid
from nereid_shared.times import rfc3339

_SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL: Final = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL_VALUE: Final = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_QUALIFIED: Final = rf"({_SUBDOMAIN}/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_SYSTEM_FIELDS: Final = (
    "uid", "name", "generateName", "namespace", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "generation", "resourceVersion",
)  # fmt: skip
# Kinds of Kubernetes' own whose status the main endpoint cannot write.
_WITH_STATUS: Final = {"Pod", "Node", "Namespace", "Service", "Deployment", "CustomResourceDefinition"}
_RANDOM_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"  # generateName's own: no vowels, hence no words
_MUTABLE_POD_FIELDS: Final = {"activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "nodeName"}


def named(kind: Kind, name: str) -> str:
    """Return an object's name as the API's messages have it: ``datasets.edgeai.io "digits"``."""
    return f'{kind.resource} "{name}"'


class Admission:
    """The rules of each kind, with the schemas of the custom resources."""

    def __init__(self, crds: Callable[[], Iterable[Object]]) -> None:
        """Take the definitions.

        Args:
            crds: gives the CustomResourceDefinitions; asked at the first write, since who only reads needs none.
        """
        self._crds = crds

    @cached_property
    def _schemas(self) -> dict[str, schema.Schema]:
        return {
            crd["metadata"]["name"]: version["schema"]["openAPIV3Schema"]
            for crd in self._crds()
            for version in crd["spec"]["versions"]
            if version["storage"]
        }

    def has_status(self, kind: Kind) -> bool:
        """Whether the kind's status is a subresource: it is for each of our own."""
        return kind.kind in _WITH_STATUS or kind.resource in self._schemas

    def list_keys(self, kind: Kind) -> ListKeys:
        """Return the keys of the kind's lists, for server-side apply."""
        known = self._schemas.get(kind.resource)
        return builtin_list_keys if known is None else schema_list_keys(known)

    def parsed(self, kind: Kind, obj: Mapping[str, Any]) -> Object:
        """Return a copy of a request's object, strictly decoded and with its defaults.

        Raises:
            Invalid: it is not JSON, or has fields that the kind does not know.
        """
        metadata = obj.get("metadata")
        name = str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""
        try:
            copy: Object = json.loads(json.dumps(obj, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise Invalid(named(kind, name), (FieldCause(field="", message=f"it is not JSON: {error}"),)) from error
        whole = self._schema(kind)
        _refuse(kind, name, schema.unknown_fields(whole, copy))
        result: Object = schema.with_defaults(whole, copy)
        # What follows reads the metadata as what it should be.
        _refuse(kind, name, schema.violations(builtin.METADATA, result.setdefault("metadata", {}), "metadata"))
        return result

    def _schema(self, kind: Kind) -> schema.Schema:
        known = self._schemas.get(kind.resource)
        if known is None:
            known = builtin.SCHEMAS.get(kind.kind, {"type": "object"})
            known = {**known, "x-kubernetes-preserve-unknown-fields": True}
        return {**known, "properties": {**known.get("properties", {}), "metadata": builtin.METADATA}}

    def created(self, kind: Kind, obj: Object) -> Object:
        """Return a new object as it is stored.

        Args:
            kind: its kind.
            obj: what `parsed` returned, with its namespace set.

        Raises:
            Invalid: it breaks a rule.
        """
        metadata = obj["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            suffix = "".join(secrets.choice(_RANDOM_LETTERS) for _ in range(5))
            metadata["name"] = metadata["generateName"][:58] + suffix
        for key in ("resourceVersion", "managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(key, None)
        metadata |= {"uid": new_uid(), "creationTimestamp": rfc3339()}
        metadata.pop("generation", None)
        if _generation_of(kind, obj) is not None:
            metadata["generation"] = 1
        if self.has_status(kind) and kind != kinds.NODE:
            obj.pop("status", None)
        if kind == kinds.POD:
            obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        elif kind == kinds.NAMESPACE:
            obj["status"] = {"phase": "Active"}
        self._check(kind, obj, None)
        return obj

    def updated(self, kind: Kind, obj: Object, old: Object) -> Object:
        """Return an object as the main endpoint stores it in place of `old`: status and system fields stay.

        Raises:
            Invalid: it breaks a rule.
            Conflict: it is meant for an object of another uid.
        """
        metadata, before = obj["metadata"], old["metadata"]
        if metadata.get("uid", before["uid"]) != before["uid"]:
            raise Conflict(
                f"{named(kind, before['name'])}: Precondition failed: UID in precondition: {metadata['uid']}, "
                f"UID in object meta: {before['uid']}"
            )
        metadata.pop("managedFields", None)
        metadata |= {key: before[key] for key in _SYSTEM_FIELDS if key in before}
        for key in _SYSTEM_FIELDS:
            if key not in before:
                metadata.pop(key, None)
        if self.has_status(kind):
            obj.pop("status", None)
            if "status" in old:
                obj["status"] = old["status"]
        self._check(kind, obj, old)
        if _generation_of(kind, obj) != _generation_of(kind, old):
            metadata["generation"] = before.get("generation", 0) + 1
        return obj

    def with_status(self, kind: Kind, obj: Object, old: Object) -> Object:
        """Return `old` with the status of `obj`, as the status endpoint stores it.

        Raises:
            Invalid: the status breaks the schema.
        """
        result = {key: value for key, value in old.items() if key != "status"}
        result["metadata"] = dict(old["metadata"])
        if "status" in obj:
            result["status"] = obj["status"]
        self._check(kind, result, old)
        return result

    def _check(self, kind: Kind, obj: Object, old: Object | None) -> None:
        causes = [
            *schema.violations(self._schema(kind), obj),
            *_metadata_violations(kind, obj["metadata"], old),
        ]
        # The further rules read fields as what they should be; a value that is only out of bounds does not hinder them.
        if not any(schema.hinders_rules(cause) for cause in causes):
            causes += _builtin_violations(kind, obj, old)
            causes += _rule_violations(kind, obj, old) if kind.resource in self._schemas else ()
        _refuse(kind, obj["metadata"].get("name", ""), causes)


def _refuse(kind: Kind, name: str, causes: Iterable[FieldCause]) -> None:
    if found := tuple(causes):
        raise Invalid(named(kind, name), found)


def _at(obj: Any, path: str) -> Any:
    for part in path.split("."):
        obj = obj.get(part, {}) if isinstance(obj, Mapping) else {}
    return obj


def _generation_of(kind: Kind, obj: Object) -> Any:
    """Return what a kind's generation counts the changes of, or None for a kind that has no generation."""
    if kind == kinds.POD:
        return obj.get("spec")
    if kind == kinds.DEPLOYMENT:
        return obj.get("spec"), obj["metadata"].get("annotations")
    if "." in kind.group and not kind.group.endswith(".k8s.io"):
        return {key: value for key, value in obj.items() if key not in {"metadata", "status"}}
    return None


def _metadata_violations(kind: Kind, metadata: Mapping[str, Any], old: Object | None) -> Iterator[FieldCause]:
    name = metadata.get("name", "")
    pattern, most, words = (_LABEL, 63, "label") if kind == kinds.NAMESPACE else (_SUBDOMAIN, 253, "subdomain")
    if not name:
        yield FieldCause(field="metadata.name", message="Required value: name or generateName is required")
    elif len(name) > most:
        yield schema.invalid_value("metadata.name", name, f"must be no more than {most} bytes")
    elif not re.fullmatch(pattern, name):
        allowed = "'-'" if words == "label" else "'-' or '.'"
        message = (
            f"a lowercase RFC 1123 {words} must consist of lower case alphanumeric characters, {allowed}, "
            "and must start and end with an alphanumeric character"
        )
        yield schema.invalid_value("metadata.name", name, message)
    for key, value in (metadata.get("labels") or {}).items():
        if not re.fullmatch(_QUALIFIED, key) or len(key.rpartition("/")[2]) > 63:
            yield schema.invalid_value("metadata.labels", key, "name part must be a qualified name")
        if len(value) > 63 or not re.fullmatch(_LABEL_VALUE, value):
            yield schema.invalid_value(
                "metadata.labels",
                value,
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
                "and must start and end with an alphanumeric character, and must be no more than 63 bytes",
            )
    finalizers = metadata.get("finalizers") or []
    before = old["metadata"] if old else {}
    added = [name for name in finalizers if name not in before.get("finalizers", ())]
    if added and "deletionTimestamp" in before:
        message = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
        yield FieldCause(field="metadata.finalizers", message=f"Forbidden: {message}")


def _rule_violations(kind: Kind, obj: Object, old: Object | None) -> Iterator[FieldCause]:
    # The models take a tenth of a second and megabytes, which who writes no custom resource does without.
    from nereid_shared.resources import broken_rules  # noqa: PLC0415

    for cause in broken_rules(kind.kind, obj, old):
        yield schema.invalid_value(cause.field, _at(obj, cause.field), cause.message)


def _builtin_violations(kind: Kind, obj: Object, old: Object | None) -> Iterator[FieldCause]:
    if kind == kinds.POD:
        yield from _pod_violations(obj, old)
    elif kind == kinds.DEPLOYMENT:
        yield from _deployment_violations(obj, old)
    elif kind == kinds.SERVICE:
        yield from _service_violations(obj)
    elif kind == kinds.EVENT:
        involved = obj["involvedObject"].get("namespace") or "default"
        if involved != obj["metadata"]["namespace"]:
            yield schema.invalid_value("involvedObject.namespace", involved, "does not match event.namespace")


def _service_violations(obj: Object) -> Iterator[FieldCause]:
    name, spec = obj["metadata"]["name"], obj["spec"]
    if len(name) > 63 or not re.fullmatch(_DNS_LABEL, name):
        message = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character"
        )
        yield schema.invalid_value("metadata.name", name, message)
    if not spec.get("ports") and spec["type"] != "ExternalName":
        yield FieldCause(field="spec.ports", message="Required value")


def _pod_violations(obj: Object, old: Object | None) -> Iterator[FieldCause]:
    spec = obj["spec"]
    volumes = {volume["name"] for volume in spec.get("volumes", ())}
    for index, container in enumerate(spec["containers"]):
        for position, mount in enumerate(container.get("volumeMounts", ())):
            if mount["name"] not in volumes:
                where = f"spec.containers[{index}].volumeMounts[{position}].name"
                yield FieldCause(field=where, message=f"Not found: {json.dumps(mount['name'])}")
    if old is None:
        return
    bound = old["spec"].get("nodeName")
    if _fixed(spec) != _fixed(old["spec"]) or (bound and spec.get("nodeName") != bound):
        message = (
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)"
        )
        yield FieldCause(field="spec", message=f"Forbidden: {message}")


def _fixed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a Pod's spec that never changes."""
    result = {key: value for key, value in spec.items() if key not in _MUTABLE_POD_FIELDS}
    for key in ("containers", "initContainers"):
        if key in spec:
            result[key] = [{name: v for name, v in container.items() if name != "image"} for container in spec[key]]
    return result


def _deployment_violations(obj: Object, old: Object | None) -> Iterator[FieldCause]:
    spec = obj["spec"]
    selector, labels = spec["selector"].get("matchLabels") or {}, spec["template"].get("metadata", {}).get("labels")
    if not selector:
        yield schema.invalid_value("spec.selector", {}, "empty selector is invalid for deployment")
    if any((labels or {}).get(key) != value for key, value in selector.items()):
        where, message = "spec.template.metadata.labels", "`selector` does not match template `labels`"
        yield schema.invalid_value(where, labels or {}, message)
    if old is not None and old["spec"]["selector"] != spec["selector"]:
        yield schema.invalid_value("spec.selector", spec["selector"], "field is immutable")
