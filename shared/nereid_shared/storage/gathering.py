# SPDX-License-Identifier: Apache-2.0
"""The files of one artefact on their way into a folder of hard links: from the cache's blobs, or from the server."""

import logging
from pathlib import Path, PurePosixPath
from typing import Final

from nereid_shared.card import FILE_NAME, MAX_BYTES, Card
from nereid_shared.errors import ModelInvalid, Unavailable
from nereid_shared.storage import signatures
from nereid_shared.storage.blobs import Blobs, Given
from nereid_shared.storage.checks import require_size
from nereid_shared.storage.download import Arrived, Download, Progress
from nereid_shared.storage.patience import Patience
from nereid_shared.storage.places import beside, shown

logger = logging.getLogger(__name__)

MAX_GOLDEN_BYTES: Final = 64 * 1024**2
"""Of all golden inputs of one model together."""

TREE: Final = "tree"

# Where an earlier copy serves, nobody should wait long for a server that is away.
_ATTEMPTS_WITH_COPY: Final = 2


class Gathering:
    """What `Cache.obtain` gathers in a folder that this process has alone.

    Attributes:
        tree: the folder of hard links.
        digests: the sha256 of each file, by its path below `tree`.
    """

    def __init__(self, *, blobs: Blobs, work: Path, patience: Patience) -> None:
        self.tree, self.digests = work / TREE, dict[str, str]()
        self._blobs, self._work, self._patience = blobs, work, patience
        self._server_away = False

    def get(
        self, url: str, name: str, *, sha256: str | None, max_bytes: int, progress: Progress | None = None,
        made: Arrived | None = None,
    ) -> Arrived:  # fmt: skip
        """Have the file that a URL names as `tree` / `name`.

        Args:
            url: of a server.
            name: a path below `tree`.
            sha256: its digest, or None where nobody knows it.
            max_bytes: larger files are refused.
            progress: told as it comes.
            made: what was made of the file already: while it is still the same, it is not needed.

        Raises:
            As `Download.run`.
        """
        to = self.tree / name
        to.parent.mkdir(parents=True, exist_ok=True)
        given = self._blobs.given(url)
        arrived = made or self._from_blobs(given, to, sha256)
        if arrived is None or (sha256 is None and not self._server_away):
            arrived = self._from_server(url, to, arrived, sha256=sha256, max_bytes=max_bytes, progress=progress)
        require_size(arrived.bytes, max_bytes, shown(url))
        fresh = Given(url=url, digest=arrived.digest, validator=arrived.validator)
        if fresh != given:
            self._blobs.remember(fresh)
        self.digests[name] = arrived.digest
        return arrived

    def companions(self, url: str) -> None:
        """Have the card of the model that a URL names, where there is one, and the golden inputs that it names.

        Raises:
            ModelInvalid: also ``CardInvalid``. Else as `Download.run`.
        """
        try:
            self.get(beside(url, FILE_NAME), FILE_NAME, sha256=None, max_bytes=MAX_BYTES)
        except ModelInvalid as error:
            if error.reason != "ModelMissing":
                raise
            return  # who needs a card says so
        left = MAX_GOLDEN_BYTES
        for golden in Card.load(self.tree / FILE_NAME).golden:
            name = str(PurePosixPath(golden.input))
            if name not in self.digests:
                self._require_free(name, shown(url))
                left -= self.get(beside(url, name), name, sha256=None, max_bytes=left).bytes

    def verify(self, url: str, public_key: str, artefact: str) -> None:
        """Have the signature of what has come, and hold it to it; with no key nothing is done.

        Raises:
            ModelInvalid: also ``SignatureMissing``, ``SignatureInvalid``. Else as `Download.run`.
        """
        if not public_key:
            return
        try:
            self.get(
                beside(url, signatures.FILE_NAME), signatures.FILE_NAME, sha256=None, max_bytes=signatures.MAX_BYTES
            )
        except ModelInvalid as error:
            if error.reason != "ModelMissing":
                raise
            raise ModelInvalid(
                f"{shown(url)}: there is no {signatures.FILE_NAME} beside it", reason="SignatureMissing"
            ) from error
        bundle = (self.tree / signatures.FILE_NAME).read_bytes()
        signatures.verify(bundle, public_key=public_key, artefact=artefact, files=self.digests, where=shown(url))

    def _require_free(self, name: str, where: str) -> None:
        path = PurePosixPath(name)
        if any(str(parent) in self.digests for parent in path.parents) or (self.tree / name).exists():
            raise ModelInvalid(f"{where}: its card names {name} as a file and as a folder", reason="CardInvalid")

    def _from_blobs(self, given: Given | None, to: Path, sha256: str | None) -> Arrived | None:
        digest = sha256 or (given.digest if given else None)
        if digest is None or not self._blobs.link(digest, to):
            return None
        validator = given.validator if given and given.digest == digest else None
        return Arrived(digest=digest, bytes=to.stat().st_size, validator=validator)

    def _from_server(
        self, url: str, to: Path, copy: Arrived | None, *, sha256: str | None, max_bytes: int,
        progress: Progress | None,
    ) -> Arrived:  # fmt: skip
        # Companions have a part of their own: the rest of one file is not to be sought in another.
        part = self._work / ("companion.part" if self.digests else "part")
        download = Download(
            url=url, part=part, sha256=sha256, max_bytes=max_bytes, patience=self._patience, progress=progress
        )
        try:
            if copy is None:
                arrived = download.run()
            else:
                arrived = download.run(unless=copy.validator, attempts=_ATTEMPTS_WITH_COPY)
        except Unavailable as error:
            if copy is None:
                raise
            self._server_away = True
            logger.warning("server away, using the copy", extra={"url": shown(url), "problem": str(error)})
            return copy
        if arrived is None:
            assert copy is not None  # noqa: S101 - nothing else asks for a change only
            return copy
        to.unlink(missing_ok=True)
        self._blobs.add(part, arrived.digest, to)
        download.forget()
        return arrived
