# SPDX-License-Identifier: Apache-2.0
"""Where a broker is, how to speak to it, and what it says when we vanish."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from nereid_shared.errors import UserError

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the CA that the broker must be signed by (None: the system's), and our certificate with its key."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context made of the files as they are now, so that a renewed certificate is taken up."""
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """Where a broker is and how to speak to it.

    Attributes:
        keepalive_s: silence after which the peer is asked for a sign of life; it is given up after as long again.
        max_packet_bytes: our own bound on packets, both ways; the broker's own is kept too where it is lower.
        max_inflight: publishes that may wait for their PUBACK, at most what the broker allows. It bounds throughput to
            ``max_inflight / round trip``.
        max_queued: publishes that wait for room in that window; `max_queued_bytes` bounds their payloads.
        receive_max: messages that the broker may send before the first of them is acknowledged.
        connect_timeout_s: bounds each step of connecting: TCP, TLS, CONNACK, SUBACK.
    """

    host: str
    port: int
    client_id: str
    username: str = ""
    password: str = field(default="", repr=False)
    tls: TlsFiles | None = None
    keepalive_s: int = 20
    max_packet_bytes: int = 16 * _MIB + 64 * 1024
    max_inflight: int = 20
    max_queued: int = 1000
    max_queued_bytes: int = 32 * _MIB
    receive_max: int = 100
    connect_timeout_s: float = 5.0

    @classmethod
    def from_url(cls, url: str, *, client_id: str, tls: TlsFiles | None = None, **more: Any) -> "LinkSettings":
        """Return the settings for ``mqtt://host:port`` or ``mqtts://user:password@host:port``.

        Raises:
            UserError: the URL is of another kind, or TLS files were given without ``mqtts``.
        """
        parts = urlsplit(url)
        shown = url.rpartition("@")[2]
        try:
            port = parts.port
        except ValueError as error:
            raise UserError(f"broker URL has a bad port: {error}", where=shown, mend="Use 1 to 65535") from error
        if parts.scheme not in _PORTS or not parts.hostname or parts.path not in {"", "/"}:
            raise UserError("not a broker URL", where=shown, mend="Write mqtt://host:port or mqtts://host:port")
        if tls is not None and parts.scheme != "mqtts":
            raise UserError("TLS files were given for a broker without TLS", where=shown, mend="Write mqtts://")
        return cls(
            host=parts.hostname,
            port=port or _PORTS[parts.scheme],
            client_id=client_id,
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            tls=(tls or TlsFiles()) if parts.scheme == "mqtts" else None,
            **more,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes when the connection ends without our DISCONNECT."""

    topic: str
    payload: bytes
    retain: bool = True
