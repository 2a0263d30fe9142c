# SPDX-License-Identifier: Apache-2.0
"""The LocalController's state folder: one process, one node, one install id for as long as the folder lives."""

import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from nereid_shared.errors import UserError

_LOCK: Final = "lock"
_NODE: Final = "node"
_INSTALL: Final = "install"
_ACCEPT: Final = "accept-cluster"


class StateFolder:
    """A locked folder; use it as a context manager.

    Raises:
        UserError: on entering: another LocalController runs on it, it belongs to another node, or cannot be written.
    """

    def __init__(self, path: Path, *, node: str) -> None:
        self.path, self.node = path, node
        self.install = ""
        self._lock: int | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take_lock(self._lock)
            self._bind()
            self.install = self._once(_INSTALL, secrets.token_hex(8))
        except OSError as error:
            self.__exit__(None, None, None)
            raise UserError(
                f"cannot be used: {error.strerror}", where=str(self.path), mend="Give --state a folder to write to"
            ) from error
        except UserError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def datasets_db(self) -> Path:
        """The file of what was read of datasets; without it they are read again."""
        return self.path / "datasets.db"

    @property
    def desired_db(self) -> Path:
        """The file of the desired state."""
        return self.path / "desired.db"

    @property
    def outbox_db(self) -> Path:
        """The file of the outbox."""
        return self.path / "outbox.db"

    @property
    def served(self) -> Path:
        """The file of what workers were told last."""
        return self.path / "served.json"

    def accepted_cluster(self) -> str | None:
        """Return the cluster that the operator lets prune this node (file ``accept-cluster``), if any."""
        try:
            return (self.path / _ACCEPT).read_text().strip() or None
        except FileNotFoundError:
            return None

    def consume_acceptance(self, cluster: str) -> None:
        """Remove the operator's acceptance once it was used: the next change of cluster is asked for again."""
        if self.accepted_cluster() == cluster:
            (self.path / _ACCEPT).unlink(missing_ok=True)

    def _take_lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                "another LocalController runs on this folder",
                where=str(self.path),
                mend="Stop it, or give this one a folder of its own with --state",
            ) from error

    def _bind(self) -> None:
        owner = self._once(_NODE, self.node)
        if owner != self.node:
            raise UserError(
                f"the folder belongs to node {owner!r}, not {self.node!r}",
                where=str(self.path),
                mend="Give each node a folder of its own with --state",
            )

    def _once(self, name: str, text: str) -> str:
        """Return what a file holds; where there is none yet, it holds `text` from now on."""
        file = self.path / name
        if file.exists() and (held := file.read_text().strip()):
            return held
        draft = file.with_suffix(".new")
        with draft.open("w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
        return text
