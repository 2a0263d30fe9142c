# SPDX-License-Identifier: Apache-2.0
"""Images in files as a source: named by an index, or found in a folder, each read once, over any restarts.

What an index names is read by `nereid_shared.datasets`, as the LocalController counts it.

A cursor is a number, and a number means something only while the order stays. An index is read in its own order, and
the mark of the image read last tells where rows were put in or taken out before it. A folder has no order of its own:
`FolderNames` keeps the one in which its images were first seen.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nereid_shared.datasets import Dataset, path_of
from nereid_shared.datasets.pictures import MAX_FILE_BYTES
from nereid_shared.datasets.source import shown
from nereid_shared.defaults import DATASET_FORMATS
from nereid_shared.errors import UserError
from nereid_worker.folder_names import FolderNames
from nereid_worker.page import mark_of
from nereid_worker.sources import Frame, frame

logger = logging.getLogger(__name__)

# A file system's clock ticks every few ms, and two changes within one tick look the same.
TICK_NS: Final = 50_000_000


class Files:
    """Images named by an index (`csv`, `txt`, `jsonl`, `coco`), or found in a folder (`folder`, `yolo`, `xml`).

    Blank lines are nothing; a row without a name is a sample that fails. Paths are relative to the dataset's folder and
    cannot leave it. Where the URL is a folder, its index files are read one after the other, by name. Rows are to be
    added behind all others: those put before the cursor are not read, which the log says.

    What is found (of `xml` the annotations) is taken by name, what comes later after all others.

    Args:
        url: the index file or folder, as a path or ``file://`` URL.
        format: one of `nereid_shared.defaults.DATASET_FORMATS` whose samples are pictures in files of their own.
        interval_s: pace, kept by the worker; 0 reads as fast as it can.

    Raises:
        UserError: there is no such file or folder, or the format is unknown or has no pictures.
    """

    live = False
    blocking = False

    def __init__(self, url: str, format: str, *, interval_s: float = 0.0) -> None:  # noqa: A002 - the CRD's word
        self._path = path_of(url) if "://" in url else Path(url)
        self._dataset = Dataset(str(self._path.absolute()), format)
        if not self._dataset.has_pictures:
            raise UserError(
                f"format {format!r} has no reader in a worker", where=url, reason="DatasetFormatUnknown",
                mend=f"Use {', '.join(DATASET_FORMATS)}, without parquet and tfrecord; let a script open these.",
            )  # fmt: skip
        self._require()
        self.interval_s = interval_s
        self.identity = hashlib.sha256(f"{format} {self._path}".encode()).hexdigest()
        self._seen = FolderNames()
        self._folders = [self._path]

    def keep_order(self, state: Path) -> None:
        """Let the order of what is found in a folder outlive the process, in a file of the state folder."""
        if self._dataset.found is not None:
            self._seen.keep_in(state / "folder.names", identity=self.identity)

    def resume(self, cursor: int, mark: int) -> int:
        """Return the index of the image to go on with.

        Args:
            cursor: the index behind the image read last.
            mark: `mark_of` that image's key; 0 where none is known.

        Raises:
            UserError: as `frames`.
        """
        if not cursor or not mark:
            return cursor
        nearest = None
        for index, name in self._numbered():
            if mark_of(shown(name) or str(index)) != mark:
                continue
            if index == cursor - 1:
                if self._dataset.found is not None:
                    self._seen.forget_gone(cursor)
                return cursor
            if nearest is None or abs(index + 1 - cursor) <= abs(nearest - cursor):
                nearest = index + 1
        if nearest is None:
            logger.warning("the image read last is not in the dataset any more", extra={"goes_on_at": cursor})
            return cursor
        logger.warning(
            "images were put in or taken out before those read already; none of these is read",
            extra={"read": cursor, "goes_on_at": nearest},
        )
        return nearest

    def frames(self, start: int) -> Iterator[Frame]:
        """Yield the images from the index `start` on; one that cannot be read has ``data`` None.

        Raises:
            UserError: the index cannot be read, or the whole dataset has vanished; no image counts as failed for that.
        """
        root = self._dataset.root
        inside = os.path.realpath(root) + os.sep
        for index, name in self._numbered():
            if index >= start:
                data = _read(root / self._picture(root, name), inside)
                if data is None:
                    self._require()
                yield frame(data, index=index, key=shown(name))

    def version(self) -> tuple[object, ...]:
        """Return the times of change and the sizes of all that names images; empty while it is gone.

        Shortly after a change it differs from what it will be later, so that a second one in the same tick is not lost.
        """
        try:
            looks = [(look.st_mtime_ns, look.st_size) for look in map(os.stat, self._named_by())]
        except OSError:
            return ()
        now_ns = time.time_ns()
        return (*looks, any(now_ns - changed_ns < TICK_NS for changed_ns, _ in looks))

    def _require(self) -> None:
        if not self._path.exists():
            raise UserError(
                "there is no such file or folder", where=str(self._path),
                mend="Put it there, or mend spec.dataUrl of the Dataset.", reason="DatasetUnreadable",
            )  # fmt: skip

    def _named_by(self) -> list[Path]:
        if self._dataset.found is not None:
            return self._folders
        return [self._path, *self._dataset.indices()] if self._path.is_dir() else [self._path]

    def _numbered(self) -> Iterator[tuple[int, str]]:
        """Yield each sample's index, and the name that is its key."""
        try:
            if self._dataset.found is not None:
                yield from self._seen.take(self._found())
            else:
                yield from enumerate(sample.name for sample in self._dataset.samples())
        except OSError as error:
            raise UserError(
                f"the index cannot be read: {error}", where=str(self._path), mend="Mend the file; it is tried again.",
                reason="DatasetUnreadable",
            ) from error  # fmt: skip

    def _found(self) -> list[str]:
        """Return the samples that are in the folder now, by name."""
        self._require()
        root, folders = self._dataset.root, list[Path]()
        names = sorted(
            name for name, _ in self._dataset.entries(on_folder=lambda folder: folders.append(root / folder))
        )
        self._folders = folders or [self._path]
        return names

    def _picture(self, root: Path, name: str) -> str:
        try:
            return name if self._dataset.found is None else self._dataset.found.picture(root, name)
        except OSError:
            return ""


def _read(path: Path, inside: str) -> bytes | None:
    try:
        if not os.path.realpath(path).startswith(inside) or path.stat().st_size > MAX_FILE_BYTES:
            return None
        return path.read_bytes()
    except (OSError, ValueError):  # a name with a NUL is a ValueError
        return None
