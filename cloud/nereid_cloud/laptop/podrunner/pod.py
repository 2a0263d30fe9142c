# SPDX-License-Identifier: Apache-2.0
"""One Pod of this node: its folder, its volumes, its containers, and its end."""

import asyncio
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from nereid_cloud.cluster.kinds import CONFIG_MAP, ref_of
from nereid_cloud.cluster.local_logs import LOG_FOLDER
from nereid_cloud.cluster.port import Cluster, Kind, Object, Ref
from nereid_cloud.laptop.podrunner.attempt import LOCK, Attempt, Launch
from nereid_cloud.laptop.podrunner.container import TERMINATION_MESSAGE, Container, termination_message_path
from nereid_cloud.laptop.podrunner.launch import CannotCreate, resolve
from nereid_cloud.laptop.podrunner.report import EventType, Reporter
from nereid_cloud.laptop.podrunner.settings import Settings
from nereid_cloud.laptop.podrunner.status import pod_status, restart_policy
from nereid_cloud.laptop.podrunner.stop import Stop
from nereid_cloud.laptop.podrunner.volumes import Mounts, is_token, prepare
from nereid_shared.errors import Conflict, NereidError, NotFound, TemporaryError
from nereid_shared.times import rfc3339

_SECRET = Kind(group="", version="v1", kind="Secret", plural="secrets")
_MANIFEST = "pod.json"
_NO_INIT = "a laptop runs processes in place of containers, and no init containers: this Pod needs a cluster"
_GRACE_S = 30.0
_RETRY_S = 1.0

logger = logging.getLogger(__name__)


class PodWorker:
    """Runs one Pod from its first sight to its end; `run` is to be called once."""

    def __init__(self, pod: Object, *, settings: Settings, cluster: Cluster, reporter: Reporter) -> None:
        self._pod, self._settings, self._cluster, self._reporter = pod, settings, cluster, reporter
        metadata = pod["metadata"]
        self.folder = folder_of(settings) / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        self._stop = Stop()
        self._gone = False
        self._started_at: str = pod.get("status", {}).get("startTime") or rfc3339()
        self._posted: dict[str, Any] = {}
        self._mounts: dict[str, Path] = {}
        self._containers = [self._container(spec) for spec in pod["spec"]["containers"]]

    @classmethod
    def from_disk(cls, folder: Path, *, settings: Settings, cluster: Cluster, reporter: Reporter) -> Self:
        """Return the worker of a Pod that an earlier PodRunner ran."""
        return cls(json.loads((folder / _MANIFEST).read_text()), settings=settings, cluster=cluster, reporter=reporter)

    def update(self, pod: Object) -> None:
        """Take note of the Pod as the API has it now."""
        self._pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._stop.ask(pod["metadata"].get("deletionGracePeriodSeconds") or 0)

    def vanish(self) -> None:
        """Take note that the API has the Pod no more: stop it within its own grace period."""
        self._gone = True
        self._stop.ask(self._grace_s)

    def shut_down(self, longest_s: float) -> None:
        """Stop the containers within `longest_s` or their own grace period, and leave the Pod to the next PodRunner."""
        self._stop.ask(min(self._grace_s, longest_s))

    async def kill(self) -> None:
        """Kill every process that its containers have; for when stopping them failed."""
        for lock in self.folder.glob(f"containers/*/*/{LOCK}"):
            attempt = await Attempt.adopt(lock.parent)
            try:
                attempt.kill()
                await attempt.ended()
            finally:
                attempt.close()

    def resync(self) -> None:
        """Write the status again where the API has another, such as what a node controller wrote of a lost node."""
        if self._posted and _gist(self._pod.get("status", {})) != _gist(self._posted):
            self._reporter.status(self._pod, self._posted)

    async def run(self) -> None:
        """Run the Pod until it is deleted or the PodRunner shuts down."""
        if self._pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
            await self._run_containers()
        await self._stop.wait()
        if self._gone:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
        elif "deletionTimestamp" in self._pod["metadata"]:
            await self._finalize()

    async def _run_containers(self) -> None:
        await asyncio.to_thread(self._prepare_folder)
        if self._pod["metadata"].get("annotations", {}).get(LOG_FOLDER) != str(self.folder):
            self._reporter.annotate(self._pod, {LOG_FOLDER: str(self.folder)})
        if self._pod["spec"].get("initContainers"):
            # They prepare mounts for images: there are neither here, and what follows them would run on nothing.
            for container in self._containers:
                container.wait_for("InitContainersUnsupported", _NO_INIT)
            return
        if not self._any_run():
            self._changed()
            if not await self._mount():
                return
        elif not await self._mount():
            # asked to stop while a volume is missing: what an earlier PodRunner started has to end all the same
            logger.info("volumes missing at stop", extra={"pod": self._pod["metadata"]["name"]})
        async with asyncio.TaskGroup() as group:
            for container in self._containers:
                group.create_task(container.run(self._stop), name=f"container {container.name}")

    def _any_run(self) -> bool:
        return any((self.folder / "containers").iterdir())

    def _prepare_folder(self) -> None:
        for name in ("containers", "work", "volumes", "objects"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        manifest = self.folder / _MANIFEST
        manifest.touch(mode=0o600)
        temporary = manifest.with_suffix(".tmp")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(self._pod))
        temporary.replace(manifest)

    async def _mount(self) -> bool:
        """Prepare the volumes, as often as it takes; return whether they are there."""
        while not self._stop.asked:
            try:
                self._mounts = await asyncio.to_thread(self._prepare_volumes)
            except TemporaryError as error:
                logger.warning("volumes delayed", extra={"problem": str(error)})
            except NereidError as error:
                self._event("Warning", "FailedMount", str(error))
                # The kubelet says it in the Event alone; who reads statuses, as the GlobalManager does, is told too.
                for container in [] if self._any_run() else self._containers:
                    container.wait_for("FailedMount", str(error))
            else:
                return True
            await self._stop.wait(_RETRY_S)
        return False

    def _prepare_volumes(self) -> dict[str, Path]:
        return {
            volume["name"]: prepare(volume, folder=self.folder / "volumes", roots=self._settings.host_roots,
                                    fetch=self._fetch)
            for volume in self._pod["spec"].get("volumes", ())
            if not is_token(volume)
        }  # fmt: skip

    def _fetch(self, kind: Literal["ConfigMap", "Secret"], name: str) -> Object:
        """Return an object of the Pod's namespace; the copy on disk while the API does not answer."""
        copy = self.folder / "objects" / f"{kind}-{name}.json"
        of_kind = _SECRET if kind == "Secret" else CONFIG_MAP
        try:
            found = self._cluster.get(Ref(kind=of_kind, name=name, namespace=self._pod["metadata"]["namespace"]))
        except TemporaryError:
            if copy.exists():
                cached: Object = json.loads(copy.read_text())
                return cached
            raise
        found = {"kind": kind, **found}
        copy.touch(mode=0o600)
        copy.write_text(json.dumps(found))
        return found

    def _container(self, spec: Mapping[str, Any]) -> Container:
        name = spec["name"]

        async def launch() -> Launch:
            return await asyncio.to_thread(self._resolve, spec)

        def event(type_: EventType, reason: str, message: str) -> None:
            self._event(type_, reason, message, container=name)

        return Container(
            spec, policy=restart_policy(self._pod), grace_s=self._grace_s, folder=self.folder / "containers" / name,
            host=self._settings.address, backoff_s=self._settings.backoff_s,
            backoff_ceiling_s=self._settings.backoff_ceiling_s, resolve=launch, changed=self._changed, event=event,
        )  # fmt: skip

    def _resolve(self, spec: Mapping[str, Any]) -> Launch:
        if self._pod["spec"].get("initContainers"):
            raise CannotCreate("the PodRunner runs no init containers", reason="CreateContainerConfigError")
        message = self.folder / f"{spec['name']}{TERMINATION_MESSAGE}"
        message.write_bytes(b"")  # each run begins with an empty one
        mounts = Mounts.of(spec, self._mounts).with_file(termination_message_path(spec), message)
        return resolve(
            self._pod, spec, mounts=mounts, base=self._settings.environment,
            host_ip=self._settings.address, fetch=self._fetch, work=self.folder / "work",
            log=self.folder / f"{spec['name']}.log", log_bytes=self._settings.log_bytes,
        )  # fmt: skip

    async def _finalize(self) -> None:
        """Write the last status, delete the Pod for good, and remove its folder."""
        if self._posted:
            await self._reporter.status(self._pod, self._posted).wait()
        while True:
            try:
                await asyncio.to_thread(
                    self._cluster.delete, ref_of(self._pod), uid=self._pod["metadata"]["uid"], grace_s=0
                )
            except (NotFound, Conflict):
                pass
            except TemporaryError as error:
                logger.warning("deletion delayed", extra={"problem": str(error)})
                await asyncio.sleep(error.delay_s or _RETRY_S)
                continue
            break
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
        logger.info("pod deleted", extra={"pod": self._pod["metadata"]["name"]})

    @property
    def _grace_s(self) -> float:
        grace_s = self._pod["spec"].get("terminationGracePeriodSeconds")
        return _GRACE_S if grace_s is None else float(grace_s)

    def _changed(self) -> None:
        """Have the Pod's status written where it differs from the last one written."""
        ours = {condition["type"]: condition for condition in self._posted.get("conditions", ())}
        theirs = {condition["type"]: condition for condition in self._pod.get("status", {}).get("conditions", ())}
        status = pod_status(
            {**self._pod, "status": {"conditions": list((theirs | ours).values())}},
            [container.view for container in self._containers],
            host_ip=self._settings.address, started_at=self._started_at, now=rfc3339(),
        )  # fmt: skip
        if status != self._posted:
            self._posted = status
            self._reporter.status(self._pod, status)

    def _event(self, type_: EventType, reason: str, message: str, *, container: str = "") -> None:
        self._reporter.event(self._pod, type_, reason, message, container=container)


def _gist(status: Mapping[str, Any]) -> tuple[object, ...]:
    ready = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
    containers = [(item["name"], item["restartCount"], item["state"]) for item in status.get("containerStatuses", ())]
    return status.get("phase"), ready.get("Ready"), containers


def folder_of(settings: Settings) -> Path:
    """Return where the node's Pods are kept, and their logs."""
    return settings.folder / "pods"
