# SPDX-License-Identifier: Apache-2.0
import asyncio
from typing import Any

from tests.cloud.gm.peers import dataset, model, service

from nereid_cloud.cluster.port import Object
from nereid_cloud.gm.informer import pod_trimmed, without_managers
from nereid_cloud.gm.plan import EdgePlan, Parts
from nereid_cloud.gm.policy import Policy, Runtime
from nereid_cloud.gm.resolving import MADE_AT_ONCE, Resolver
from nereid_shared.messages import TaskRow
from nereid_shared.resources import JointInferenceService

UID = "12345678-9abc-4def-8123-456789abcdef"
POLICY = Policy(runtimes={"*": Runtime(image="nereid-worker:1")})


def stored(obj: Object, *, generation: int = 1) -> Object:
    uid = UID if obj["kind"] == "JointInferenceService" else f"uid-{obj['metadata']['name']}"
    return {**obj, "metadata": {**obj["metadata"], "uid": uid, "generation": generation}}


def parts(*edges: EdgePlan, little: Object | None = None) -> Parts:
    big = stored(model("big"))
    return Parts(edges=edges, little=little or stored(model("little")), big=big, cloud_hostname="cloud")


def edge(name: str, *, broker: str = "mqtt://127.0.0.1:1883", **datasets: Object) -> EdgePlan:
    return EdgePlan(node=name, broker=broker, datasets=datasets)


def rows(resolver: Resolver, of: Parts, *, generation: int = 1, **changes: Any) -> dict[str, TaskRow]:
    raw = stored(service(**changes), generation=generation)
    return resolver.rows(JointInferenceService.model_validate(raw), raw, of)


def test_a_row_is_made_once_and_names_its_pod() -> None:
    resolver, raw, here = Resolver(POLICY), stored(service()), edge("edge-0")
    first, second = rows(resolver, parts(here)), rows(resolver, parts(here))
    pod = resolver.pod(JointInferenceService.model_validate(raw), raw, parts(here), here)
    assert first["edge-0"] is second["edge-0"]
    assert first["edge-0"].refs["worker"] == pod["metadata"]["name"]


def test_a_new_generation_of_service_or_model_makes_all_rows_anew() -> None:
    resolver, both = Resolver(POLICY), parts(edge("edge-0"), edge("edge-1"))
    before = rows(resolver, both)
    changed = rows(resolver, both, generation=2, deadline="9s")
    assert {row.generation for row in changed.values()} == {2}
    assert all(changed[node].hash != before[node].hash for node in before)
    little = stored(model("little"), generation=7)
    little["spec"] = {**little["spec"], "modelUrl": "/var/lib/nereid/other.tflite"}
    again = rows(resolver, parts(edge("edge-0"), edge("edge-1"), little=little), generation=2, deadline="9s")
    assert all(again[node].hash != changed[node].hash for node in changed)


def test_what_changes_at_one_node_makes_that_row_anew() -> None:
    resolver = Resolver(POLICY)
    before = rows(resolver, parts(edge("edge-0"), edge("edge-1")))
    moved = rows(resolver, parts(edge("edge-0"), edge("edge-1", broker="mqtt://127.0.0.1:1999")))
    data = stored(dataset("digits", on="edge-0"), generation=1)
    read = rows(resolver, parts(edge("edge-0", digits=data), edge("edge-1", broker="mqtt://127.0.0.1:1999")))
    counted = rows(resolver, parts(edge("edge-0", digits=stored(data, generation=2))))
    assert moved["edge-0"] is before["edge-0"]
    assert moved["edge-1"].refs["worker"] != before["edge-1"].refs["worker"]
    assert read["edge-1"] is moved["edge-1"]
    assert read["edge-0"].hash != moved["edge-0"].hash
    assert counted.keys() == {"edge-0"}
    assert counted["edge-0"].hash != read["edge-0"].hash


async def test_a_fleets_rows_leave_others_their_turn() -> None:
    resolver, raw = Resolver(POLICY), stored(service())
    of = parts(*(edge(f"edge-{number}") for number in range(3 * MADE_AT_ONCE)))
    work = asyncio.create_task(resolver.prepare(JointInferenceService.model_validate(raw), raw, of))
    turns = 0
    while not work.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 3
    assert len(rows(resolver, of)) == 3 * MADE_AT_ONCE


def test_caches_keep_of_a_pod_where_it_is_and_how_it_fares() -> None:
    metadata = {"name": "pod", "labels": {"a": "b"}}
    pod: Object = {
        "metadata": {**metadata, "managedFields": [{"manager": "kubelet"}]},
        "spec": {"nodeName": "edge-0", "containers": [{"name": "worker"}]},
        "status": {"phase": "Running"},
    }
    trimmed = {"metadata": metadata, "spec": {"nodeName": "edge-0"}, "status": {"phase": "Running"}}
    assert pod_trimmed(pod) == trimmed
    assert without_managers(pod) == {**pod, "metadata": metadata}
