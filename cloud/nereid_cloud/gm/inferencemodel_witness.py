# SPDX-License-Identifier: Apache-2.0
"""What is seen of an InferenceModel's servers: Pods, nodes' words, the Deployment; and where they answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nereid_cloud.cluster.port import Object
from nereid_cloud.cluster.readiness import is_ready
from nereid_cloud.gm import inferencemodel_pods as pods
from nereid_cloud.gm.checks import unresolved
from nereid_cloud.gm.conditions import Problem
from nereid_cloud.gm.downstream import Downstream
from nereid_cloud.gm.inferencemodel_plan import ModelPlan
from nereid_cloud.gm.inferencemodel_pods import EDGE_SERVING_ROLE
from nereid_cloud.gm.inferencemodel_report import ModelReport
from nereid_cloud.gm.inferencemodel_status import Replica, in_pod, is_rolled_out, living, on_node
from nereid_cloud.gm.informer import Informer
from nereid_cloud.gm.names import TEMPLATE_LABEL
from nereid_cloud.gm.observed import Observed
from nereid_cloud.gm.placement import Placement
from nereid_cloud.gm.policy import Policy
from nereid_cloud.gm.workers import EdgeEvidence, edge_worker
from nereid_shared.defaults import SERVING_PORT
from nereid_shared.messages import TaskRow
from nereid_shared.resources import InferenceModel
from nereid_shared.serving import SERVING_ROLE
from nereid_shared.topics import service_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCaches:
    """The informers that an InferenceModel depends on."""

    models: Informer
    nodes: Informer
    deployments: Informer


class ModelWitness:
    """Sees how InferenceModels fare.

    Args:
        caches: where the objects are.
        placement: knows their Pods and Services.
    """

    def __init__(
        self,
        caches: ModelCaches,
        *,
        placement: Placement,
        downstream: Downstream,
        observed: Observed,
        policy: Policy,
    ) -> None:
        self._caches, self._placement, self._policy = caches, placement, policy
        self._downstream, self._observed = downstream, observed

    def report(
        self,
        model: InferenceModel,
        planned: ModelPlan,
        *,
        rows: Mapping[str, TaskRow],
        names: Mapping[str, str],
        held: frozenset[str],
        refused: tuple[Problem, ...],
    ) -> ModelReport:
        """Return what there is to say of a model.

        Args:
            model: the model.
            planned: what it comes to.
            rows: its nodes' tasks.
            names: of the Pods that nodes should have.
            held: the nodes that stay on record.
            refused: what could not be made.
        """
        uid = model.metadata.uid
        deployment = self._caches.deployments.get(model.metadata.namespace, pods.deployment_name(model))
        on_nodes = planned.is_edge
        replicas = self._on_nodes(uid, planned, rows, names) if on_nodes else self._in_cloud(model, deployment)
        is_whole = planned.is_edge or is_rolled_out(deployment)
        return ModelReport(
            replicas=tuple(replicas),
            desired=len(planned.nodes) if planned.is_edge else model.spec.replicas,
            is_whole=is_whole,
            problems=(*planned.problems, *refused, *unresolved(self._downstream.unresolved(uid))),
            held=held,
            is_edge=planned.is_edge,
            target=_target(planned),
            selector=pods.labels_of(model, is_edge=planned.is_edge),
            url=self._url(model, planned),
            external_url="" if planned.is_edge else self._external_url(uid),
            unheard=any(self._is_unheard(node) for node in rows),
        )

    def _on_nodes(
        self, uid: str, planned: ModelPlan, rows: Mapping[str, TaskRow], names: Mapping[str, str]
    ) -> list[Replica]:
        there = {
            pod["spec"].get("nodeName", ""): pod for pod in living(self._placement.pods_of(uid, EDGE_SERVING_ROLE))
        }
        return [
            self._by_word(uid, node, planned, rows[node], there.get(node))
            if node in rows
            else self._by_pod(node, there.get(node), names.get(node))
            for node in planned.nodes
        ]

    def _by_pod(self, node: str, pod: Object | None, name: str | None) -> Replica:
        """Judge a server of others on a node, or one of ours whose task is not known."""
        if pod is None:
            message = "the Pod is not there yet"
            return Replica(place=node, state="pending", is_there=False, reason="WorkerStarting", message=message)
        is_current = name in (None, pod["metadata"]["name"])
        return in_pod(pod, node=self._caches.nodes.get("", node), is_current=is_current, place=node)

    def _by_word(self, uid: str, node: str, planned: ModelPlan, row: TaskRow, pod: Object | None) -> Replica:
        """Judge our worker on a node."""
        status = self._observed.status(node, uid)
        seen = edge_worker(
            EdgeEvidence(
                node=node,
                node_ready=is_ready(self._caches.nodes.get("", node)),
                absence=self._observed.absence(node),
                row=row,
                pod=pod,
                applied=self._downstream.is_applied(node, uid),
                trouble=self._downstream.trouble(node),
                state=self._observed.task(node, uid),
                status=status,
            )
        )
        return replace(on_node(seen, status, target=_target(planned)), is_there=pod is not None)

    def _in_cloud(self, model: InferenceModel, deployment: Object | None) -> list[Replica]:
        infos = self._observed.cloud.get(service_id(model.metadata.name, model.metadata.uid), {})
        there = living(self._placement.pods_of(model.metadata.uid, SERVING_ROLE))
        self._sweep(model, there)
        template = _template(deployment["spec"]["template"]) if deployment is not None else ""
        return [
            in_pod(
                pod,
                node=self._caches.nodes.get("", pod["spec"].get("nodeName", "")),
                is_current=_template(pod) == template,
                info=infos.get(pod["metadata"]["name"]),
            )
            for pod in there
        ]

    def _sweep(self, model: InferenceModel, there: list[Object]) -> None:
        """Clear what servers that are gone left on the broker."""
        identity, names = (
            service_id(model.metadata.name, model.metadata.uid),
            {pod["metadata"]["name"] for pod in there},
        )
        for name, info in list(self._observed.cloud.get(identity, {}).items()):
            if name not in names and info.status == "offline":
                self._downstream.clear_cloud_info(identity, name)

    def _is_unheard(self, node: str) -> bool:
        return is_ready(self._caches.nodes.get("", node)) and self._observed.is_unheard(node)

    def _url(self, model: InferenceModel, planned: ModelPlan) -> str | None:
        """Return where requests go, of several nodes the first's; None where that stays as it was."""
        if planned.server is None:
            return "" if planned.yields else None
        port = planned.server.port
        if self._policy.listen:
            return f"http://{self._policy.listen}:{port}" if planned.nodes or not planned.is_edge else ""
        if planned.is_edge:
            address = next((_address(self._caches.nodes.get("", node)) for node in planned.nodes), "")
            return f"http://{address}:{port}" if address else ""
        host = f"{pods.service_name(model)}.{model.metadata.namespace}.svc"
        return f"http://{host}:{model.spec.serving_port or SERVING_PORT}"

    def _external_url(self, uid: str) -> str:
        """Return where a Service can be reached from outside: at its balancer, else at some node."""
        service = self._placement.service_of(uid)
        if service is None or self._policy.listen:
            return ""
        port = service["spec"]["ports"][0]
        for ingress in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            return f"http://{ingress.get('hostname') or ingress.get('ip')}:{port['port']}"
        ready = sorted(filter(is_ready, self._caches.nodes.items()), key=lambda node: node["metadata"]["name"])
        address = next(filter(None, map(_address, ready)), "")
        return f"http://{address}:{port['nodePort']}" if port.get("nodePort") and address else ""


def _template(made: Object) -> str:
    """Return of which template a Pod is."""
    return str((made["metadata"].get("labels") or {}).get(TEMPLATE_LABEL, ""))


def _target(planned: ModelPlan) -> str:
    return planned.server.version if planned.server is not None else ""


def _address(node: Object | None) -> str:
    """Return a node's address: the one within the cluster's network before any other."""
    if node is None:
        return ""
    found = {one.get("type"): one.get("address") for one in (node.get("status") or {}).get("addresses") or ()}
    return str(found.get("InternalIP") or found.get("ExternalIP") or found.get("Hostname") or node["metadata"]["name"])
