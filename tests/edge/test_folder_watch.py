# SPDX-License-Identifier: Apache-2.0
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nereid_edge.folder_watch import FolderWatch

TIMEOUT_S = 30.0


@pytest.fixture
def watch() -> Iterator[FolderWatch]:
    made = FolderWatch()
    yield made
    made.close()


def test_what_changes_in_a_folder_ends_the_wait(watch: FolderWatch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    folders = frozenset({str(tmp_path / "a"), str(tmp_path / "b")})
    assert watch.follow(folders) == (True, folders)
    (tmp_path / "b" / "file").touch()
    assert watch.wait(TIMEOUT_S) == {str(tmp_path / "b")}


def test_a_call_ends_the_wait_also_before_it_has_begun(watch: FolderWatch) -> None:
    watch.call()
    assert watch.wait(None) == frozenset()
    caller = threading.Timer(0.0, watch.call)
    caller.start()
    assert watch.wait(None) == frozenset()
    caller.join()


def test_a_call_does_not_wait_for_more_changes(watch: FolderWatch, tmp_path: Path) -> None:
    watch.follow({str(tmp_path)})
    (tmp_path / "file").touch()
    watch.call()
    assert watch.wait(None, gather_s=3600.0) == {str(tmp_path)}


def test_a_folder_that_is_not_followed_any_more_says_nothing(watch: FolderWatch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    watch.follow({str(tmp_path / "a")})
    assert watch.follow({str(tmp_path / "b")}) == (True, frozenset({str(tmp_path / "b")}))
    (tmp_path / "a" / "file").touch()
    (tmp_path / "b" / "file").touch()
    assert watch.wait(TIMEOUT_S) == {str(tmp_path / "b")}


def test_a_folder_that_is_not_there_is_not_followed(watch: FolderWatch, tmp_path: Path) -> None:
    assert watch.follow({str(tmp_path / "none")}) == (False, frozenset())
    (tmp_path / "none").mkdir()
    assert watch.follow({str(tmp_path / "none")}) == (True, frozenset({str(tmp_path / "none")}))


def test_a_folder_that_was_moved_is_followed_anew(watch: FolderWatch, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    watch.follow({str(folder)})
    folder.rename(tmp_path / "b")
    assert watch.wait(TIMEOUT_S) == {str(folder)}
    folder.mkdir()
    assert watch.follow({str(folder)}) == (True, frozenset({str(folder)}))


def test_no_more_folders_are_watched_than_may_be(tmp_path: Path) -> None:
    watch = FolderWatch(max_folders=1)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert watch.follow({str(tmp_path / "a"), str(tmp_path / "b")}) == (False, frozenset({str(tmp_path / "a")}))
    assert watch.follow({str(tmp_path / "a")}) == (True, frozenset())
    watch.close()


def test_a_call_after_the_end_is_no_error(watch: FolderWatch) -> None:
    watch.close()
    watch.call()
