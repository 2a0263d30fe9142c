# SPDX-License-Identifier: Apache-2.0
"""Python programs in Pods of the project's own images: the way to a node that has neither exec nor logs nor ssh.

What a program has to say it writes to its termination message, which the API server shows.
"""

import json
import secrets
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from tests.cluster.kubectl import Kubectl
from tests.flow.patience import until

ROOT: Final = "/var/lib/nereid"
_MESSAGE: Final = "def say(words):\n    open('/dev/termination-log', 'w').write(words[:4000])\n"

RETAINED: Final = """
import asyncio, json, os, pathlib
from nereid_shared.link import Link, LinkSettings, TlsFiles

async def main():
    kept, end = set(), asyncio.Event()
    def take(message):
        if message.topic == "neptune/services/test/end":
            end.set()
        elif message.retain and message.payload:
            kept.add(message.topic)
    certs = pathlib.Path("/certs")
    tls = TlsFiles(ca=certs / "ca.crt", cert=certs / "tls.crt", key=certs / "tls.key") if certs.exists() else None
    settings = LinkSettings.from_url(os.environ["URL"], client_id="test-eyes", tls=tls)
    async with Link(settings, subscriptions={"neptune/services/#": take, "neptune/workers/#": take}) as link:
        await link.wait_connected()
        await link.publish("neptune/services/test/end", b"")
        await asyncio.wait_for(end.wait(), 10)
    return sorted(kept)

say(json.dumps(asyncio.run(main())))
"""


def run(
    kubectl: Kubectl,
    script: str,
    *,
    namespace: str,
    node: str = "",
    volumes: Mapping[str, Mapping[str, Any]] | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return what it gave to ``say``.

    Args:
        kubectl: its namespace does not matter.
        script: the program.
        namespace: where the Pod is; in `nereid` it is one of the cloud, else one of a node's own network, as root.
        node: where it runs; the scheduler's choice without.
        volumes: by mount path.
        env: its environment.
    """
    name = f"errand-{secrets.token_hex(4)}"
    kubectl(
        "apply", "--filename=-", f"--namespace={namespace}", stdin=_pod(name, script, namespace, node, volumes, env)
    )

    def ended() -> Any:
        pod = kubectl.json("pod", name, f"--namespace={namespace}")
        return pod if pod["status"].get("phase") in {"Succeeded", "Failed"} else None

    try:
        status = until(ended, f"the end of {name}", within_s=90.0)["status"]
    except AssertionError:
        raise AssertionError(kubectl("describe", "pod", name, f"--namespace={namespace}")) from None
    finally:
        kubectl("delete", "pod", name, f"--namespace={namespace}", "--wait=false", "--grace-period=1")
    said = status["containerStatuses"][0]["state"]["terminated"].get("message", "")
    assert status["phase"] == "Succeeded", said
    return str(said)


def _pod(  # noqa: PLR0917
    name: str,
    script: str,
    namespace: str,
    node: str,
    volumes: Mapping[str, Mapping[str, Any]] | None,
    env: Mapping[str, str] | None,
) -> str:
    in_cloud = namespace == "nereid"
    user = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532} if in_cloud else {"runAsUser": 0}
    mounts = list((volumes or {}).items())
    container = {
        "name": "main",
        "image": f"nereid-{'cloud' if in_cloud else 'edge'}:{version('nereid-ai')}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", _MESSAGE + script],
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": f"v{number}", "mountPath": path} for number, (path, _) in enumerate(mounts)],
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {**user, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": f"v{number}", **volume} for number, (_, volume) in enumerate(mounts)],
    }
    if node:
        spec |= {"nodeName": node, "tolerations": [{"operator": "Exists"}], "hostNetwork": not in_cloud}
    metadata = {"name": name, "labels": {"app": "nereid-errand"}}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def host(path: str) -> dict[str, Any]:
    """Return a volume that is a folder of the node."""
    return {"hostPath": {"path": path, "type": "DirectoryOrCreate"}}
