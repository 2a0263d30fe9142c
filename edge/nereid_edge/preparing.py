# SPDX-License-Identifier: Apache-2.0
"""Files that tasks need and that are elsewhere, fetched into the node's cache before a worker is told of them.

What is wanted is fetched until it is here, each file once however many tasks want it, a few at a time, in threads. What
an earlier run has fetched is known at once, with no network. Nothing here knows what a file is for.
"""

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

from nereid_shared.backoff import Backoff
from nereid_shared.errors import ModelInvalid, NereidError, Stopped, TemporaryError, UserError
from nereid_shared.messages import MODEL_FETCHING
from nereid_shared.places import node_path

if TYPE_CHECKING:  # with what it brings along it takes memory that a node without downloads has other use for
    from nereid_shared.storage import Cache, Obtained, Wanted

logger = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 2 * 1024**3
AT_ONCE: Final = 3
# A server that is away is asked often; what it has wrong, or large and wrong, is fetched again and again in vain.
RETRY_S: Final = (1.0, 60.0)
RETRY_WRONG_S: Final = (30.0, 3600.0)
# The card or the golden inputs beside a file with the right digest may be mended without another word.
RETRY_DOUBTED_S: Final = (5.0, 600.0)
_COSTLY: Final = frozenset({"DigestMismatch", "ModelTooLarge"})
_PERCENT: Final = 5
_STEP_BYTES: Final = 10_000_000

T = TypeVar("T")


class Artefact(NamedTuple):
    """A file to fetch.

    Attributes:
        sha256: its digest in hex, "" where nobody gave one.
        companions: with it come ``model.json`` beside it, and the golden inputs that names.
    """

    url: str
    sha256: str = ""
    companions: bool = False
    max_bytes: int = MAX_FILE_BYTES


class Preparation(NamedTuple):
    """How far an artefact is.

    Attributes:
        path: the file on this node; "" while it is not here.
        digest, bytes: of the file.
        key: its name in the cache, by which it is kept.
        reason: one CamelCase word where it is not here; `message` says how much of it is, or why it is not.
    """

    status: Literal["fetching", "ready", "failed"]
    path: str = ""
    digest: str = ""
    bytes: int = 0
    key: str = ""
    reason: str = ""
    message: str = ""


BEGUN: Final = Preparation("fetching", reason=MODEL_FETCHING, message="not here yet")


def is_elsewhere(url: str) -> bool:
    """Whether a URL names what has to be fetched, and not a file of this node."""
    return node_path(url) is None


class Preparing:
    """The node's cache, and what is on its way into it. Belongs to one event loop.

    Args:
        root: the cache's folder.
        max_bytes: what it may take, but for what is wanted or kept.
        on_change: called on the loop when an artefact is further than it was.
    """

    def __init__(self, root: Path, *, max_bytes: int, on_change: Callable[[], None]) -> None:
        self._root, self._max_bytes, self._on_change = root, max_bytes, on_change
        self._found: dict[Artefact, Preparation] = {}
        self._work: dict[Artefact, _Work] = {}
        self._keep: Collection[str] = ()
        self._cache: Cache | None = None
        self._opening = threading.Lock()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch")

    def want(self, artefacts: Collection[Artefact], *, keep: Collection[str] = ()) -> None:
        """Have these fetched and no others.

        Args:
            artefacts: what is wanted; what is here already stays as it is.
            keep: keys that the cache keeps besides.
        """
        self._keep = tuple(keep)
        for artefact in self._work.keys() - {*artefacts}:
            self._end(artefact)
            self._found.pop(artefact, None)
        for artefact in artefacts:
            if artefact not in self._work:
                self._found[artefact] = BEGUN
                work = self._work[artefact] = _Work()
                work.task = asyncio.create_task(self._prepare(artefact, work), name=f"prepare {artefact.url}")
                work.task.add_done_callback(_log_defect)

    def of(self, artefact: Artefact) -> Preparation:
        """Return how far a wanted artefact is."""
        return self._found.get(artefact, BEGUN)

    def doubt(self, artefact: Artefact, *, is_wrong: bool) -> None:
        """Say whether who uses an artefact has found it wrong: then its server is asked now and then for another."""
        if (work := self._work.get(artefact)) is not None:
            (work.doubt.set if is_wrong else work.doubt.clear)()

    def close(self) -> None:
        """End all downloads; what came of them is kept."""
        for artefact in list(self._work):
            self._end(artefact)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _end(self, artefact: Artefact) -> None:
        work = self._work.pop(artefact)
        work.stop.set()
        if work.task is not None:
            work.task.cancel()

    async def _prepare(self, artefact: Artefact, work: "_Work") -> None:
        """Bring an artefact here, and another one in its place where it was found wrong and its server has one."""
        known = await asyncio.to_thread(self._known, artefact)
        if known is not None:
            self._is(artefact, _ready(known))
        # Without a digest the server is asked once whether it has another file by now; what is here serves meanwhile.
        if known is None or not artefact.sha256:
            await self._fetch(artefact, work.stop, is_here=known is not None)
        backoff = Backoff(first_s=RETRY_DOUBTED_S[0], longest_s=RETRY_DOUBTED_S[1])
        while not work.stop.is_set():
            await work.doubt.wait()
            await asyncio.sleep(backoff.next_s())
            former = self.of(artefact)
            await self._fetch(artefact, work.stop, is_here=True)
            if self.of(artefact) != former:
                backoff.reset()

    async def _fetch(self, artefact: Artefact, stop: threading.Event, *, is_here: bool) -> None:
        """Return when an artefact was fetched, or is not wanted any more; one that is here stays until then."""
        quick, slow = (Backoff(first_s=first, longest_s=longest) for first, longest in (RETRY_S, RETRY_WRONG_S))
        loop = asyncio.get_running_loop()
        while True:
            progress = _Progress(functools.partial(self._tell, loop, artefact, quiet=is_here))
            try:
                obtain = functools.partial(self._obtain, artefact, progress, stop)
                obtained = await loop.run_in_executor(self._threads, obtain)
            except Stopped:
                return
            except (NereidError, OSError) as error:
                failed = _failed(error)
                logger.warning("not fetched", extra={"problem": failed.message})
                if not is_here:
                    self._is(artefact, failed)
                await asyncio.sleep(_delay_s(error, slow if failed.reason in _COSTLY else quick))
            else:
                self._is(artefact, _ready(obtained))
                await self._collect()
                return

    async def _collect(self) -> None:
        """Make room, once something has come; what is wanted or kept stays."""
        keep = {*self._keep, *(found.key for found in self._found.values() if found.key)}
        try:
            freed = await asyncio.to_thread(self._opened().collect, keep)
        except OSError as error:
            logger.warning("cache not tidied", extra={"problem": str(error)})
        else:
            if freed:
                logger.info("cache tidied", extra={"freed_bytes": freed})

    def _is(self, artefact: Artefact, found: Preparation) -> None:
        if artefact in self._work and self._found.get(artefact) != found:
            self._found[artefact] = found
            self._on_change()

    def _tell(self, loop: asyncio.AbstractEventLoop, artefact: Artefact, message: str, *, quiet: bool) -> None:
        """Say how far a download is; called in its thread."""
        if not quiet and not loop.is_closed():
            here = Preparation("fetching", reason=MODEL_FETCHING, message=message)
            loop.call_soon_threadsafe(self._comes, artefact, here)

    def _comes(self, artefact: Artefact, here: Preparation) -> None:
        # A file that was wrong may be wrong again: until it is here, that is what there is to say.
        if self.of(artefact).status != "ready" and self.of(artefact).reason not in _COSTLY:
            self._is(artefact, here)

    # In threads.

    def _known(self, artefact: Artefact) -> "Obtained | None":
        return self._opened().known(_wanted(artefact))

    def _obtain(self, artefact: Artefact, progress: "_Progress", stop: threading.Event) -> "Obtained":
        return self._opened().obtain(_wanted(artefact), progress=progress, stop=stop.is_set)

    def _opened(self) -> "Cache":
        from nereid_shared.storage import Cache  # noqa: PLC0415 - see above

        with self._opening:
            if self._cache is None:
                self._cache = Cache(self._root, max_bytes=self._max_bytes)
            return self._cache


@dataclass(slots=True)
class _Work:
    """The work on one artefact: `stop` ends its downloads, `doubt` is set while it is found wrong."""

    task: asyncio.Task[None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    doubt: asyncio.Event = field(default_factory=asyncio.Event)


class _Progress:
    """Says how far a download is, in steps: each word goes to the cloud."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._told = tell, -1

    def __call__(self, there: int, whole: int | None) -> None:
        step = there * 100 // whole // _PERCENT if whole else there // _STEP_BYTES
        if step != self._told:
            self._told = step
            self._tell(f"{step * _PERCENT} % of {_size(whole)}" if whole else f"{_size(there)} so far")


def _wanted(artefact: Artefact) -> "Wanted":
    from nereid_shared.storage import Wanted  # noqa: PLC0415 - see above

    return Wanted(**artefact._asdict())


def _ready(obtained: "Obtained") -> Preparation:
    return Preparation(
        "ready", path=str(obtained.path), digest=obtained.digest, bytes=obtained.bytes, key=obtained.key
    )  # fmt: skip


def _failed(error: Exception) -> Preparation:
    reason = error.reason if isinstance(error, ModelInvalid | UserError) else ""
    return Preparation("failed", reason=reason or "ModelUnavailable", message=str(error))


def _delay_s(error: Exception, backoff: Backoff) -> float:
    asked_s = error.delay_s if isinstance(error, TemporaryError) else None
    return backoff.next_s() if asked_s is None else asked_s


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _log_defect(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a file is no longer looked after", exc_info=error)
