# SPDX-License-Identifier: Apache-2.0
"""Deletion as the API server and its garbage collector do it: finalizers, grace, owner references, namespaces.

All of it happens in the transaction of the request that caused it, where a cluster's controllers need seconds.
"""

import json
import time
from typing import Any, Final, Literal

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import kind_of
from nereid_cloud.cluster.local_store import Transaction
from nereid_cloud.cluster.port import Object
from nereid_shared.times import rfc3339

Propagation = Literal["Background", "Foreground", "Orphan"]
FOREGROUND: Final = "foregroundDeletion"


def delete(
    transaction: Transaction, obj: Object, *, grace_s: int | None = None, propagation: Propagation = "Background"
) -> None:
    """Delete an object, or mark it where finalizers, dependents or a Pod's grace period keep it."""
    if propagation == "Orphan":
        for dependent in transaction.dependents(obj["metadata"]["uid"]):
            _disown(transaction, dependent, {obj["metadata"]["uid"]})
    finalizers = list(obj["metadata"].get("finalizers") or ())
    if propagation == "Foreground" and FOREGROUND not in finalizers:
        finalizers.append(FOREGROUND)
    grace = _grace_s(obj, grace_s)
    if finalizers or grace or obj["kind"] == "Namespace":
        _mark(transaction, obj, grace_s=grace, finalizers=finalizers)
    else:
        remove(transaction, obj)
    if propagation == "Foreground":
        for dependent in transaction.dependents(obj["metadata"]["uid"]):
            _delete_if_present(transaction, dependent, propagation="Foreground")
    if obj["kind"] == "Namespace":
        for inside in transaction.in_namespace(obj["metadata"]["name"]):
            _delete_if_present(transaction, inside)
    _settle_uid(transaction, obj["metadata"]["uid"])


def _delete_if_present(transaction: Transaction, obj: Object, *, propagation: Propagation = "Background") -> None:
    # What was deleted a moment ago may have taken this one with it, or changed it.
    found = transaction.with_uid(obj["metadata"]["uid"])
    if found is not None and "deletionTimestamp" not in found.object["metadata"]:
        delete(transaction, found.object, propagation=propagation)


def _grace_s(obj: Object, asked_s: int | None) -> int:
    """Return how long the object may take: only a Pod that runs on a node has anything to stop."""
    spec = obj.get("spec") or {}
    ended = (obj.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
    if obj["kind"] != "Pod" or not spec.get("nodeName") or ended:
        return 0
    return spec.get("terminationGracePeriodSeconds", 30) if asked_s is None else asked_s


def _mark(transaction: Transaction, obj: Object, *, grace_s: int, finalizers: list[str]) -> None:
    before = obj["metadata"]
    metadata = before | ({"finalizers": finalizers} if finalizers else {})
    if "deletionTimestamp" not in before or grace_s < before.get("deletionGracePeriodSeconds", 0):
        metadata |= {
            "deletionTimestamp": rfc3339(time.time() + grace_s),
            "deletionGracePeriodSeconds": grace_s,
        }
    if "deletionTimestamp" not in before and "generation" in before:
        metadata["generation"] = before["generation"] + 1
    marked = obj | {"metadata": metadata}
    if obj["kind"] == "Namespace":
        marked["status"] = {**obj.get("status", {}), "phase": "Terminating"}
    if marked != obj:
        _write(transaction, marked, obj)


def released(transaction: Transaction, obj: Object) -> bool:
    """Whether an object is marked and nothing keeps it any longer."""
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("deletionGracePeriodSeconds"):
        return False
    holding = set(metadata.get("finalizers") or ())
    if FOREGROUND in holding and not _blocked(transaction, metadata["uid"]):
        holding.remove(FOREGROUND)
    return not holding and not (obj["kind"] == "Namespace" and transaction.in_namespace(metadata["name"]))


def _settle_uid(transaction: Transaction, uid: str) -> None:
    found = transaction.with_uid(uid)
    if found is not None and released(transaction, found.object):
        remove(transaction, found.object)


def _blocked(transaction: Transaction, uid: str) -> bool:
    return any(
        owner["uid"] == uid and owner.get("blockOwnerDeletion")
        for dependent in transaction.dependents(uid)
        for owner in dependent["metadata"]["ownerReferences"]
    )


def remove(transaction: Transaction, obj: Object) -> None:
    """Remove an object for good, then what only it owned, then what waited for it."""
    metadata = obj["metadata"]
    dependents = transaction.dependents(metadata["uid"])
    transaction.remove(kind_of(obj), obj)
    for dependent in dependents:
        found = transaction.with_uid(dependent["metadata"]["uid"])
        if found is not None:
            collect(transaction, found.object)
    for owner in metadata.get("ownerReferences") or ():
        _settle_uid(transaction, owner["uid"])
    if namespace := metadata.get("namespace"):
        home = transaction.find(kinds.NAMESPACE, "", namespace)
        if home is not None and released(transaction, home.object):
            remove(transaction, home.object)


def collect(transaction: Transaction, obj: Object) -> None:
    """Delete an object none of whose owners exist; drop its references to those that do not."""
    owners: list[dict[str, Any]] = obj["metadata"].get("ownerReferences") or []
    gone = {owner["uid"] for owner in owners if not _exists(transaction, owner["uid"], obj)}
    if gone and all(owner["uid"] in gone for owner in owners):
        if "deletionTimestamp" not in obj["metadata"]:
            delete(transaction, obj)
    elif gone:
        _disown(transaction, obj, gone)


def _exists(transaction: Transaction, uid: str, dependent: Object) -> bool:
    found = transaction.with_uid(uid)
    namespaces = {"", None, dependent["metadata"].get("namespace")}
    return found is not None and found.object["metadata"].get("namespace") in namespaces


def _disown(transaction: Transaction, obj: Object, uids: set[str]) -> None:
    left = [owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] not in uids]
    metadata = {key: value for key, value in obj["metadata"].items() if key != "ownerReferences"}
    _write(transaction, obj | {"metadata": metadata | ({"ownerReferences": left} if left else {})}, obj)


def _write(transaction: Transaction, obj: Object, before: Object) -> None:
    stored = transaction.with_uid(obj["metadata"]["uid"])
    applied = stored.applied if stored else {}
    transaction.put(kind_of(obj), json.loads(json.dumps(obj)), before=before, applied=applied)
