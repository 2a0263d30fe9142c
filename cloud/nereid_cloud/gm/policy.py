# SPDX-License-Identifier: Apache-2.0
"""What the operator of a cluster lets workers be: their images, their namespaces, the host paths that they may read.

Who may write a JointInferenceService must not thereby mount /etc: the GlobalManager makes Pods with its own rights.
"""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from nereid_cloud.gm.names import DEFAULT_EDGE_BROKER
from nereid_shared.environment import HOST_ROOT
from nereid_shared.errors import UserError

ANY: Final = "*"
STATE_FOLDER: Final = PurePosixPath(HOST_ROOT)
# The outbox and other services' samples lie here.
OURS: Final = (STATE_FOLDER / "lc", STATE_FOLDER / "workers", STATE_FOLDER / "cache")

Side = Literal["edge", "cloud"]
ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer"]


class Runtime(BaseModel):
    """What runs workers of one framework; with a `command`, a server of others, which can only serve.

    Attributes:
        edge, cloud: the containers' resources, as Kubernetes writes them.
        command: of a server that is not ours. In its words, as in `models` and `ready`, ``{port}``, ``{modelName}`` and
            ``{version}`` stand for the InferenceModel's.
        port: where such a server listens, if it cannot be told.
        models: the folder in which it wants the version's unpacked files.
        ready: the path that it answers with 200 once it serves; "" for an open port.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    image: str = Field(min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    edge: dict[str, Any] = Field(default_factory=dict)
    cloud: dict[str, Any] = Field(default_factory=dict)
    command: tuple[str, ...] = ()
    port: int = Field(default=0, ge=0, le=65535)
    models: str = ""
    ready: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether our worker runs in it."""
        return not self.command

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.command and not self.models.startswith("/"):
            raise ValueError("a command needs models: the absolute path at which its server looks for a version")
        if not self.command and (self.port or self.models or self.ready):
            raise ValueError("port, models and ready are for a server with a command of its own")
        return self

    def resources(self, side: Side) -> dict[str, Any]:
        """Return the resources of a container on that side."""
        return self.edge if side == "edge" else self.cloud


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All of it; without arguments that of a laptop, whose user is its operator.

    Attributes:
        runtimes: by ``framework/version``, ``framework`` or ``*``, the most exact first.
        host_roots: users' folders on nodes are at or below one of these; empty: anywhere.
        namespaces: where services may be; empty: everywhere.
        edge_broker: URL of the nodes' own broker, where a Node's annotation names no other.
        worker_tls_secret: Secret in a service's namespace with ca.crt, tls.crt and tls.key for its cloud workers; ""
            where the cloud broker has no TLS.
        probes: whether workers are probed; not on a laptop, where all Pods share the machine's addresses.
        edge_keepalive_s: silence after which an edge worker and its broker ask each other for a sign of life; None
            for the worker's own.
        log_format: how workers log: as the GlobalManager does.
        listen: the address at which models are served; "" for all that a Pod has.
        service_type: how models in the cloud are exposed: NodePort and LoadBalancer to the world outside, too.
    """

    runtimes: dict[str, Runtime] = field(default_factory=lambda: {ANY: Runtime(image="nereid-worker")})
    host_roots: tuple[PurePosixPath, ...] = ()
    namespaces: frozenset[str] = frozenset()
    edge_broker: str = DEFAULT_EDGE_BROKER
    worker_tls_secret: str = ""
    probes: bool = True
    edge_keepalive_s: int | None = None
    log_format: Literal["text", "json"] = "text"
    listen: str = ""
    service_type: ServiceType = "NodePort"

    def runtime(self, framework: str, version: str) -> Runtime | None:
        """Return what runs workers of a framework, or None."""
        names = (f"{framework}/{version}", framework, ANY)
        return next((found for name in names if (found := self.runtimes.get(name)) and found.is_ours), None)

    def server(self, framework: str) -> Runtime | None:
        """Return what serves models of a framework, or None."""
        return self.runtimes.get(framework) or self.runtimes.get(ANY)

    @property
    def workers(self) -> Runtime:
        """What runs our own steps beside a server of others: the first of ours in the table."""
        return next((one for one in self.runtimes.values() if one.is_ours), Runtime(image="nereid-worker"))

    def serves(self, namespace: str) -> bool:
        """Whether Pods may be made in a namespace."""
        return not self.namespaces or namespace in self.namespaces

    def allows(self, path: PurePosixPath) -> bool:
        """Whether a worker may read a folder or file of its node."""
        if not self.host_roots:
            return True
        if ".." in path.parts:
            return False
        # A folder that holds ours is as good as ours.
        if any(path.is_relative_to(folder) or folder.is_relative_to(path) for folder in OURS):
            return False
        return any(path.is_relative_to(root) for root in self.host_roots)


def read_runtimes(file: Path) -> dict[str, Runtime]:
    """Return the runtime table of a YAML file.

    Raises:
        UserError: it cannot be read, or has no sense.
    """
    try:
        table = yaml.safe_load(file.read_text())
        if not isinstance(table, dict) or not table:
            raise UserError("not a table of runtimes", where=str(file), mend="Write `tflite: {image: …}`")
        return {str(name): Runtime.model_validate(runtime) for name, runtime in table.items()}
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(file)) from error
    except yaml.YAMLError as error:
        raise UserError(f"not YAML: {error}", where=str(file)) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field_ = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{field_}: {first['msg']}", where=str(file)) from error
