# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_worker.model_folder``: puts a version's files where a server of others looks for them, and ends.

The step before such a server starts, in the same Pod: fetched, checked and unpacked as our own worker's models are.
What stands in the way is the last line of its log, and so in the Pod's status; the kubelet tries again.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nereid_shared import environment, logs, topics
from nereid_shared.errors import NereidError, UserError
from nereid_shared.messages import ServingTask
from nereid_shared.storage import Cache, Wanted
from nereid_worker.models import MAX_MODEL_BYTES
from nereid_worker.scratch import Scratch

_PARTIAL: Final = ".partial"


def place(task: ServingTask, folder: Path, *, scratch: Path) -> None:
    """Put the files of a task's target into a folder of its own, which is there whole or not at all.

    Args:
        task: its target is among its versions.
        folder: for the files; a former one is replaced.
        scratch: for the download.

    Raises:
        UserError, ModelInvalid, TemporaryError: see `nereid_shared.storage.Cache.obtain`.
    """
    source = next(one for one in task.versions if one.version == task.target)
    wanted = Wanted(url=source.url, sha256=source.sha256, max_bytes=MAX_MODEL_BYTES)
    obtained = Cache(scratch, max_bytes=MAX_MODEL_BYTES).obtain(wanted)
    draft = folder.with_name(folder.name + _PARTIAL)
    for former in (draft, folder):
        shutil.rmtree(former, ignore_errors=True)
    draft.parent.mkdir(parents=True, exist_ok=True)
    if obtained.path.is_dir():
        shutil.copytree(_root_of(obtained.path), draft)
    else:
        draft.mkdir()
        shutil.copy2(obtained.path, draft)
    _open_to_all(draft)
    draft.rename(folder)


def _root_of(tree: Path) -> Path:
    """Return where an archive's files begin: those of many are all in one folder, or in one within another."""
    while True:
        inside = list(tree.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            return tree
        tree = inside[0]


def _open_to_all(folder: Path) -> None:
    """Let the server read it, whoever it runs as."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def main(env: Mapping[str, str]) -> int:
    """Do so for what the environment says; returns the exit code."""
    logs.configure(json=env.get(environment.LOG_FORMAT) == "json")
    scratch = Scratch()
    try:
        if missing := [name for name in (environment.TASK, environment.MODELS) if not env.get(name)]:
            raise UserError("not set", where=", ".join(missing), mend="The GlobalManager starts this in a Pod")
        task = ServingTask.decode(
            env[environment.TASK].encode(), max_bytes=topics.TASK.max_bytes, topic=environment.TASK
        )
        # In a folder of its own: the scratch folder itself is locked, and a cache locks its root.
        place(task, Path(env[environment.MODELS]), scratch=scratch.path / "cache")
    except NereidError as error:
        sys.stderr.write(f"{getattr(error, 'reason', '') or 'FetchFailed'}: {error}\n")
        return 1
    finally:
        scratch.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
