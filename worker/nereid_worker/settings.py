# SPDX-License-Identifier: Apache-2.0
"""The worker's settings: its identity and its mounts, which is all that a Pod carries; the rest comes as its task."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, cast

from nereid_shared import environment
from nereid_shared.errors import UserError
from nereid_shared.health import address_of
from nereid_shared.link_settings import TlsFiles

Role = Literal["edge", "cloud", "serving"]

_FLEET: Final = (environment.WORKER, environment.SERVICE, environment.BROKER)
REQUIRED: Final = {
    "edge": (*_FLEET, environment.NODE, environment.STATE),
    "cloud": (*_FLEET, environment.TASK),
    "serving": (environment.WORKER,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Read once at start.

    Attributes:
        role: ``edge``, ``cloud``, or ``serving``, which on a node has what an edge worker has, else a cloud worker's.
        worker: the Pod's name.
        node: the node's name; edge only.
        service: the service's identity on topics; "" for a serving worker.
        broker: URL of the broker: the node's own at the edge, the cloud's in the cloud; a serving worker with a task
            may do without.
        state: folder that outlives the Pod; edge only.
        script_dir: where the script is mounted, if not at the task's own path (a ConfigMap); edge only.
        tls: our certificate for the broker; None where it has no TLS.
        task: the task's JSON; cloud only, the edge gets it from its broker.
        keepalive_s: silence after which the broker is asked for a sign of life; edge only.
        info_interval_s: how often counters are reported where they change; changes of status go at once.
        json_logs: one JSON object a line instead of text.
        health: where probes are answered, if anywhere; a serving worker answers the like at its own port too.
        port: where a serving worker listens; 0 where its task says it.
        listen: the address at which it does; "" for all.
    """

    role: Role
    worker: str
    node: str
    service: str
    broker: str
    state: Path
    task: str
    info_interval_s: float
    json_logs: bool
    script_dir: str = ""
    keepalive_s: int = 20
    tls: TlsFiles | None = None
    health: tuple[str, int] | None = None
    port: int = 0
    listen: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variables of `nereid_shared.environment`.

        Raises:
            UserError: one that is needed is missing or has no sense.
        """
        role = env.get(environment.ROLE, "edge")
        if role not in REQUIRED:
            raise UserError(
                f"{role!r} is none of {', '.join(REQUIRED)}", where=environment.ROLE, mend="Write one of them."
            )
        needed = REQUIRED[role]
        if role == "serving" and not env.get(environment.TASK):
            needed = (*needed, environment.NODE, environment.BROKER, environment.STATE)
        if missing := [name for name in needed if not env.get(name)]:
            raise UserError(
                "not set", where=", ".join(missing), mend="Workers are started by the GlobalManager as Pods"
            )
        keepalive = env.get(environment.KEEPALIVE, "20")
        if not keepalive.isascii() or not keepalive.isdecimal() or not 1 <= int(keepalive) <= 3600:
            raise UserError(
                f"{keepalive!r} is not a number of seconds", where=environment.KEEPALIVE, mend="Write 1 to 3600."
            )
        port = env.get(environment.PORT) or "0"
        if not port.isascii() or not port.isdecimal() or not 0 <= int(port) <= 65535:
            raise UserError(f"{port!r} is not a port", where=environment.PORT, mend="Write 1 to 65535.")
        interval = env.get(environment.INFO_INTERVAL, "1.0")
        try:
            info_interval_s = float(interval)
        except ValueError:
            info_interval_s = math.nan
        if not 0.0 < info_interval_s <= 3600.0:
            raise UserError(
                f"{interval!r} is not a number of seconds", where=environment.INFO_INTERVAL, mend="Write 0.1 to 3600."
            )
        return cls(
            role=cast("Role", role),
            worker=env[environment.WORKER],
            node=env.get(environment.NODE, ""),
            service=env.get(environment.SERVICE, ""),
            broker=env.get(environment.BROKER, ""),
            state=Path(env.get(environment.STATE, ".")),
            task=env.get(environment.TASK, ""),
            info_interval_s=info_interval_s,
            json_logs=env.get(environment.LOG_FORMAT) == "json",
            script_dir=env.get(environment.SCRIPT_DIR, ""),
            keepalive_s=int(keepalive),
            port=int(port),
            listen=env.get(environment.LISTEN, ""),
            health=address_of(env[environment.HEALTH]) if env.get(environment.HEALTH) else None,
            tls=_certificates(Path(env[environment.CERTS])) if env.get(environment.CERTS) else None,
        )


def _certificates(folder: Path) -> TlsFiles:
    """Return the files of a folder as a Secret or `nereid certs` lays them out."""
    return TlsFiles(ca=folder / "ca.crt", cert=folder / "tls.crt", key=folder / "tls.key")
