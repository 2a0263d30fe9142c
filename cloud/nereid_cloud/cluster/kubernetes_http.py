# SPDX-License-Identifier: Apache-2.0
"""Requests to a Kubernetes API server in dictionaries, with its failures as Nereid's errors.

The official client brings what is hard to get right: kubeconfigs, in-cluster credentials and their renewal, TLS,
proxies. Its models are left aside: they cost three times the time, and the port speaks dictionaries.
"""

import json
import logging
import random
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject

from nereid_cloud.cluster.port import Kind, Object, Ref
from nereid_shared.errors import (
    AlreadyExists,
    Conflict,
    FieldCause,
    Forbidden,
    Gone,
    Invalid,
    NereidError,
    NotFound,
    PermanentError,
    Unavailable,
    UserError,
)

_FIRST_PLANE: Final = re.compile(r"[\x7f-\uffff]")

logger = logging.getLogger(__name__)

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"  # JSON is YAML

_CONNECT_S: Final = 5.0
_READ_S: Final = 30.0
# How long a call goes on asking a server that asks for patience; its callers have patience of their own.
_PATIENCE_S: Final = 10.0
_LEAST_S: Final = 0.05
# A peer that vanished without a word is noticed within 15 + 3 * 5 s, also in a watch where nothing happens.
_KEEP_ALIVE: Final = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
# Each kind that is followed has a watch of its own: what the pool keeps beside them is only looked at when it is free.
_IDLE_CONNECTIONS: Final = 64
_UNKNOWN_FIELD: Final = re.compile(r'unknown field "([^"]+)"')
# Server-side apply looks at types before any schema does, in words of its own.
_WRONG_TYPE: Final = re.compile(r"(\.[\w.\[\]=\"'-]+): expected ([a-z]+)[^,]*, got ")
_NOT_DECLARED: Final = re.compile(r"(\.[\w.\[\]=\"'-]+): field not declared in schema")


class Refused(Unavailable):
    """The server has done nothing yet, and says when to ask again."""


class Api:
    """One API server and one user's credentials; usable from several threads."""

    def __init__(self, kubeconfig: Path | None, context: str | None) -> None:
        self._configuration = Configuration()
        try:
            if kubeconfig is None:
                config.load_incluster_config(client_configuration=self._configuration)  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=str(kubeconfig), context=context, client_configuration=self._configuration
                )
        except (config.ConfigException, OSError, yaml.YAMLError) as error:
            mend = "Give a kubeconfig" if kubeconfig is None else "Check the file and its contexts"
            raise UserError(str(error), where=str(kubeconfig or "in-cluster configuration"), mend=mend) from error
        self._configuration.socket_options = _KEEP_ALIVE
        self._configuration.connection_pool_maxsize = _IDLE_CONNECTIONS
        self._pool: urllib3.PoolManager = RESTClientObject(self._configuration).pool_manager
        self._closed = threading.Event()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> Object:
        """Return the object that the API answers with; while the server asks for patience, ask again.

        Raises:
            NereidError: as `raise_for` says, or `Unavailable` where there is no answer.
        """
        ends_at = time.monotonic() + _PATIENCE_S
        while True:
            try:
                response = self.open(method, path, query=query, body=body, content_type=content_type)
            except Refused as error:
                delay_s = max(_LEAST_S, error.delay_s or 0.0) * random.uniform(1.0, 1.25)  # noqa: S311 - jitter
                if time.monotonic() + delay_s > ends_at or self._closed.wait(delay_s):
                    raise
                logger.info("asked for patience", extra={"path": path, "delay_s": round(delay_s, 3)})
                continue
            return _object(response)

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
        read_s: float | None = _READ_S,
    ) -> urllib3.BaseHTTPResponse:
        """Return a response whose status is good and whose body is still to be read.

        Args:
            method: the HTTP method.
            path: below the server's root.
            query: parameters; empty ones are left out.
            body: what is sent as JSON.
            content_type: how the body is meant.
            read_s: how long the server may be silent; None for ever.
        """
        given = urlencode({key: value for key, value in (query or {}).items() if value})
        url = f"{self._configuration.host}{path}" + (f"?{given}" if given else "")
        with _translated():
            response = self._pool.request(
                method, url,
                body=None if body is None else _encoded(body),
                headers=self._headers(content_type if body is not None else ""),
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
                preload_content=False, retries=False, redirect=False,
            )  # fmt: skip
            if response.status >= 300:
                raise_for(response.status, response.data, response.headers)
        return response

    def close(self) -> None:
        """Close idle connections; calls that wait for the server's patience end."""
        self._closed.set()
        self._pool.clear()

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": JSON, "User-Agent": "nereid"}
        if content_type:
            headers["Content-Type"] = content_type
        settings: Mapping[str, Any] = self._configuration.auth_settings()
        for setting in settings.values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        return headers


def path_of(kind: Kind, *, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
    """Return a kind's or an object's path; `namespace` None means all of them."""
    parts = ["/apis", kind.group, kind.version] if kind.group else ["/api", kind.version]
    if kind.namespaced and namespace is not None:
        parts += ["namespaces", namespace or "default"]
    return "/".join(part for part in (*parts, kind.plural, name, subresource) if part)


def path_of_ref(ref: Ref, *, subresource: str = "") -> str:
    """Return an object's path."""
    return path_of(ref.kind, namespace=ref.namespace, name=ref.name, subresource=subresource)


def raise_for(code: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Raise the error that an answer means.

    Raises:
        NereidError: always.
    """
    try:
        status = json.loads(body)
    except ValueError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    message = status.get("message") or body.decode(errors="replace").strip() or f"HTTP status {code}"
    delay_s = _delay_s(status, headers)
    raise error_of(code, status, message, delay_s)


def error_of(  # noqa: PLR0911 - one line per status
    code: int, status: Mapping[str, Any], message: str, delay_s: float | None = None
) -> NereidError:
    """Return the error that a Status object means.

    Args:
        code: the HTTP status, or the Status' own code.
        status: the Status; may be empty.
        message: its words.
        delay_s: when the server wants to be asked again.
    """
    causes = _causes(status, message)
    match code:
        case 401 | 403:
            return Forbidden(message)
        case 404:
            return NotFound(message)
        case 409 if status.get("reason") == "AlreadyExists":
            return AlreadyExists(message)
        case 409:
            return Conflict(message)
        case 410:
            return Gone(message)
        case 400 | 422 | 500 if causes:
            return Invalid(message.partition(" is invalid")[0] if " is invalid" in message else _what(status), causes)
    if delay_s is not None and code in {429, 503}:
        return Refused(message, delay_s=delay_s)
    return Unavailable(message, delay_s=delay_s) if code == 429 or code >= 500 else PermanentError(message)


def _causes(status: Mapping[str, Any], message: str) -> tuple[FieldCause, ...]:
    if status.get("reason") == "Invalid":
        details = status.get("details") or {}
        causes = tuple(
            FieldCause(field=cause.get("field", ""), message=cause.get("message", ""))
            for cause in details.get("causes") or ()
        )
        return causes or (FieldCause(field="", message=message),)
    undeclared = (field.removeprefix(".") for field in _NOT_DECLARED.findall(message))
    unknown = [*_UNKNOWN_FIELD.findall(message), *undeclared]
    mistyped = (
        FieldCause(field=field.removeprefix("."), message=f"must be of type {kind}")
        for field, kind in _WRONG_TYPE.findall(message)
    )
    return (*(FieldCause(field=field, message="unknown field") for field in dict.fromkeys(unknown)), *mistyped)


def _what(status: Mapping[str, Any]) -> str:
    details = status.get("details") or {}
    kind = ".".join(part for part in (details.get("kind", ""), details.get("group", "")) if part)
    name = details.get("name", "")
    return f'{kind} "{name}"' if kind and name else "the object"


def _delay_s(status: Mapping[str, Any], headers: Mapping[str, str]) -> float | None:
    asked = (status.get("details") or {}).get("retryAfterSeconds") or headers.get("Retry-After")
    try:
        return float(asked) if asked else None
    except ValueError:  # an HTTP date, which API servers do not send
        return None


def _object(response: urllib3.BaseHTTPResponse) -> Object:
    with _translated():
        data = response.data
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise Unavailable(f"this is not an API's answer: {data[:200]!r}") from error
    if not isinstance(answer, dict):
        raise Unavailable(f"this is not an API's answer: {data[:200]!r}")
    return answer


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(f"the cluster's API does not answer: {error}") from error


def _encoded(body: Any) -> bytes:
    """Return JSON that a server may read as YAML, as it does what is applied: that knows no pairs of escapes."""
    text = json.dumps(body, ensure_ascii=False)
    return _FIRST_PLANE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()
