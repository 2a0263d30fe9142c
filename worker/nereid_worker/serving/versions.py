# SPDX-License-Identifier: Apache-2.0
"""The versions of the served model: which are loaded, which answers by default, and how one replaces another.

A version is obtained, loaded and tested in a thread beside those that serve, and takes its place between two requests:
the loop's thread looks a version up and submits to it without awaiting in between, and a version that goes answers what
was submitted before. What fails changes nothing but what is said of it, and is tried again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from msgspec.structs import replace

from nereid_shared.backoff import Backoff
from nereid_shared.errors import ModelInvalid, TemporaryError, UserError
from nereid_shared.messages import NO_GOLDEN_SAMPLES, ServedVersion, ServingTask
from nereid_worker.serving.batcher import Batcher, Observer
from nereid_worker.serving.model import ServedModel

logger = logging.getLogger(__name__)

RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
CLOSE_S: Final = 5.0

Obtain = Callable[[ServingTask, ServedVersion], Path]
"""Returns the file or folder of a version on this node; runs in a thread. Raises as `ServedModel.load` does, or
`TemporaryError`."""

ObserverOf = Callable[[str, str], Observer]
"""Returns what is told of the batches of a model's version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A version that has passed its self-test and answers.

    Attributes:
        task: what it was loaded for.
    """

    task: ServingTask
    source: ServedVersion
    model: ServedModel
    batcher: Batcher

    @property
    def name(self) -> str:
        """The model's name."""
        return self.task.model_name

    @property
    def version(self) -> str:
        """The version's label."""
        return self.source.version


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is said of one version.

    Attributes:
        status: ``loading`` until it was tried once; ``failed`` also where a former file of this version still answers.
        reason: why it failed, or what is to be known of it though it is ready; one CamelCase word.
    """

    version: str
    status: Literal["loading", "ready", "failed"]
    source: ServedVersion
    digest: str = ""
    size: int = 0
    reason: str = ""
    message: str = ""


class Versions:
    """All versions of one model; for the loop's thread.

    Args:
        obtain: see `Obtain`.
        observer_of: see `ObserverOf`.
        on_change: called when what is loaded or what is said of it has changed.
        former: what answered by default in an earlier process; it does so again until the target has passed its test.
    """

    def __init__(
        self,
        *,
        obtain: Obtain,
        observer_of: ObserverOf,
        on_change: Callable[[], None],
        former: ServedVersion | None = None,
    ) -> None:
        self._obtain, self._observer_of, self._on_change = obtain, observer_of, on_change
        self._former = former
        self.task: ServingTask | None = None
        self.default: Loaded | None = None
        self._loaded: dict[str, Loaded] = {}
        self._problems: dict[ServedVersion, tuple[str, str]] = {}
        self._wanted, self._changed = asyncio.Event(), asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()

    def want(self, task: ServingTask) -> None:
        """Serve this task's target as soon as it can; what serves now goes on until then."""
        self.task = task
        self._wanted.set()
        self._note()

    async def until(self, true: Callable[[], bool]) -> None:
        """Return when something is true that changes with the versions."""
        while not true():
            await self._changed.wait()

    def find(self, version: str = "") -> Loaded | None:
        """Return a version that answers, "" for the default; None where there is none."""
        return self._loaded.get(version) if version else self.default

    @property
    def loaded(self) -> list[Loaded]:
        """The versions that answer, the default first."""
        return sorted(self._loaded.values(), key=lambda one: one is not self.default)

    def states(self) -> list[State]:
        """Return what is to be said of each version: the default, the task's, and others that still answer."""
        sources = {one.source: one for one in self.loaded}
        wanted = self.task.versions if self.task else []
        return [self._state(source) for source in dict.fromkeys([*sources, *wanted])]

    @property
    def problem(self) -> State | None:
        """The version of the task that failed, the target before others."""
        task = self.task
        if task is None:
            return None
        failed = [state for state in map(self._state, task.versions) if state.status == "failed"]
        return min(failed, key=lambda state: state.version != task.target, default=None)

    async def keep(self) -> None:
        """Bring the versions to what was wanted last, again and again; returns never."""
        backoff = Backoff(first_s=RETRY_S, longest_s=RETRY_MAX_S)
        while True:
            delay_s = backoff.next_s() if self._problems else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wanted.wait()
                backoff.reset()
            self._wanted.clear()
            if self.task is not None:
                await self._bring(self.task)

    async def close(self) -> None:
        """Answer what was submitted, and end all threads, but for one whose model hangs."""
        self.default = None
        for one in self._loaded.values():
            self._retire(one)
        self._loaded.clear()
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_S)

    async def _bring(self, task: ServingTask) -> None:
        is_former = self._is_former if self.default is None else lambda _: False
        for source in sorted(task.versions, key=lambda one: (not is_former(one), one.version != task.target)):
            have = self._loaded.get(source.version)
            if have is None or _made_for(have.task, have.source) != _made_for(task, source):
                await self._load(task, source)
            if source.version == task.target or (self.default is None and self._is_former(source)):
                self._choose(source)
            if self._wanted.is_set():  # another task came meanwhile
                return
        self._problems = {source: said for source, said in self._problems.items() if source in task.versions}
        if self.default is not None and self.default.source in task.versions:
            for version in self._loaded.keys() - {source.version for source in task.versions}:
                self._retire(self._loaded.pop(version))
        self._note()

    def _is_former(self, source: ServedVersion) -> bool:
        former = self._former
        # Wherever it lies by now.
        return former is not None and replace(former, path=source.path) == source

    def _choose(self, source: ServedVersion) -> None:
        """Let a version answer by default, if it can."""
        loaded = self._loaded.get(source.version)
        if loaded is None or loaded.source != source or loaded is self.default:
            return
        logger.info(
            "serving", extra={"model": loaded.name, "version": loaded.version, "digest": loaded.model.digest}
        )  # fmt: skip
        self.default = loaded
        self._note()

    async def _load(self, task: ServingTask, source: ServedVersion) -> None:
        try:
            model = await asyncio.to_thread(self._load_blocking, task, source)
        except (ModelInvalid, TemporaryError, UserError) as error:
            reason = "ModelUnavailable" if isinstance(error, TemporaryError) else error.reason
            self._fail(source, reason or "ExtraMissing", str(error))
            return
        except Exception as error:  # whatever a file does to a runtime, the versions that serve go on
            logger.exception("a version cannot be loaded", extra={"version": source.version})
            self._fail(source, "LoadFailed", f"{type(error).__name__}: {error}")
            return
        self._problems.pop(source, None)
        for warning in model.warnings:
            logger.warning("model", extra={"version": source.version, "warning": warning})
        observer = self._observer_of(task.model_name, source.version)
        batcher = Batcher(model, max_batch=task.max_batch, max_wait_s=task.max_wait_s, observer=observer)
        former = self._loaded.get(source.version)
        loaded = Loaded(task=task, source=source, model=model, batcher=batcher)
        self._loaded[source.version] = loaded
        if former is not None:
            if former is self.default:
                self.default = loaded
            self._retire(former)
        self._note()

    def _fail(self, source: ServedVersion, reason: str, problem: str) -> None:
        said = (reason, problem)
        if self._problems.get(source) != said:  # each try says the same
            logger.warning(
                "a version does not serve",
                extra={"version": source.version, "reason": reason, "problem": problem},
            )
        self._problems[source] = said
        self._note()

    def _load_blocking(self, task: ServingTask, source: ServedVersion) -> ServedModel:
        path = self._obtain(task, source)
        # An archive's digest is not that of the model in it; who unpacked it has checked it.
        model = ServedModel.load(path, framework=task.framework, sha256="" if path.is_dir() else source.sha256)
        # Each size of batch has packed weights of its own: the others' are made when they are asked for.
        if source.version == task.target:
            model.warm_up(task.max_batch)
        return model

    def _note(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._on_change()

    def _retire(self, loaded: Loaded) -> None:
        closing = asyncio.create_task(loaded.batcher.close(), name=f"retire {loaded.version}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _state(self, source: ServedVersion) -> State:
        loaded = self._loaded.get(source.version)
        if loaded is not None and loaded.source == source:
            model = loaded.model
            return State(
                version=source.version, status="ready", source=source, digest=model.digest, size=model.size,
                reason="" if model.is_tried else NO_GOLDEN_SAMPLES, message="; ".join(model.warnings),
            )  # fmt: skip
        if said := self._problems.get(source):
            return State(version=source.version, status="failed", source=source, reason=said[0], message=said[1])
        return State(version=source.version, status="loading", source=source)


def _made_for(task: ServingTask, source: ServedVersion) -> tuple[object, ...]:
    """Return all of a task that makes a version what it is."""
    return source, task.model_name, task.framework, task.max_batch, task.max_wait_s
