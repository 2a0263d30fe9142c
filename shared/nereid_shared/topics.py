# SPDX-License-Identifier: Apache-2.0
"""Every MQTT topic, with the bound of its payload, in one table.

The scheme is that of the protocol: ``neptune/nodes`` between GlobalManager and LocalController on the cloud broker,
``neptune/services`` for samples and answers on both brokers, ``neptune/workers`` on the edge broker alone. The first
level stays clear of what KubeEdge's EventBus owns (``$hw``, ``SYS``, ``{namespace}/…``), the second of ``user``.
Everything travels with QoS 1; samples and results are msgpack, all other bodies JSON.
"""

import re
from dataclasses import dataclass
from typing import Final

QOS: Final = 1
ROOT: Final = "neptune"

_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?")
_LEVEL = re.compile(r"[^/+#\x00-\x1f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One line of the table.

    Attributes:
        pattern: the topic with its variable levels in braces.
        max_bytes: the largest payload that is parsed; larger ones are dead-lettered unread.
    """

    pattern: str
    max_bytes: int

    def of(self, **levels: str) -> str:
        """Return the topic for these levels.

        Raises:
            ValueError: a level is missing, unknown, empty, or carries a character that MQTT gives a meaning.
        """
        names = _names(self.pattern)
        if set(levels) != set(names):
            raise ValueError(f"{self.pattern} takes {sorted(names)}, not {sorted(levels)}")
        for name, level in levels.items():
            if not _LEVEL.fullmatch(level):
                raise ValueError(f"{self.pattern}: {name}={level!r} cannot be a topic level")
        return self.pattern.format(**levels)

    def filter(self, **levels: str) -> str:
        """Return a subscription in which the levels that are not given are ``+``."""
        return self.pattern.format(**{name: levels.get(name, "+") for name in _names(self.pattern)})

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the variable levels of a topic, or None where it is another kind of topic."""
        pattern, given = self.pattern.split("/"), topic.split("/")
        if len(pattern) != len(given):
            return None
        levels: dict[str, str] = {}
        for want, level in zip(pattern, given, strict=True):
            if want.startswith("{"):
                levels[want[1:-1]] = level
            elif want != level:
                return None
        return levels


def _names(pattern: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", pattern)


KIB: Final = 1024
MIB: Final = 1024 * KIB

# cloud broker, control
DESIRED: Final = Topic(pattern="neptune/nodes/{node}/downstream/desired", max_bytes=MIB)
INSERT: Final = Topic(pattern="neptune/nodes/{node}/downstream/{namespace}/{plural}/{name}/insert", max_bytes=MIB)
DELETE: Final = Topic(pattern="neptune/nodes/{node}/downstream/{namespace}/{plural}/{name}/delete", max_bytes=MIB)
NODE_ALIVE: Final = Topic(pattern="neptune/nodes/{node}/upstream/alive", max_bytes=4 * KIB)
STATE: Final = Topic(pattern="neptune/nodes/{node}/upstream/state", max_bytes=MIB)
STATUS: Final = Topic(pattern="neptune/nodes/{node}/upstream/{namespace}/{plural}/{name}/status", max_bytes=64 * KIB)
SYNC: Final = Topic(pattern="neptune/nodes/{node}/upstream/sync", max_bytes=4 * KIB)
GM_ALIVE: Final = Topic(pattern="neptune/gm/alive", max_bytes=4 * KIB)
GM_SENTINEL: Final = Topic(pattern="neptune/gm/sentinel", max_bytes=4 * KIB)
GM_FENCE: Final = Topic(pattern="neptune/gm/fence", max_bytes=4 * KIB)

# both brokers, samples and answers
SAMPLES: Final = Topic(pattern="neptune/services/{service}/{node}/samples", max_bytes=16 * MIB)
RESULTS: Final = Topic(pattern="neptune/services/{service}/{node}/results", max_bytes=MIB)
CLOUD_INFO: Final = Topic(pattern="neptune/services/{service}/cloud/{pod}/info", max_bytes=64 * KIB)

# edge broker, local
TASK: Final = Topic(pattern="neptune/workers/{worker}/task", max_bytes=MIB)
WORKER_INFO: Final = Topic(pattern="neptune/workers/{worker}/info", max_bytes=64 * KIB)
ACCEPTED: Final = Topic(pattern="neptune/workers/{worker}/accepted", max_bytes=4 * KIB)


def shared(filter_: str, *, group: str) -> str:
    """Return the shared subscription of a filter (MQTT 5, section 4.8.2).

    The group's name is a secret of the service: a client without read rights could join it and starve the workers.
    """
    return f"$share/{group}/{filter_}"


def node_name(name: str) -> str:
    """Return a node's name after checking that it can be a topic level and a certificate's common name.

    Raises:
        ValueError: it is longer than 64 characters or not made of ``[a-z0-9.-]``.
    """
    if not _NODE.fullmatch(name):
        raise ValueError(f"node name {name!r}: at most 64 characters of a-z, 0-9, '.' and '-'")
    return name


def service_id(name: str, uid: str) -> str:
    """Return ``{service}``: the name cut to 48 characters and the first 8 hex digits of the uid.

    A service that is deleted and created again under its old name is another service.
    """
    return f"{name[:48]}-{uid.replace('-', '')[:8]}"
