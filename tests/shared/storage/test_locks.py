# SPDX-License-Identifier: Apache-2.0
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nereid_shared.storage.locks import held, owned_now


def wait_for_waiter(folder: Path) -> None:
    """Return once somebody waits for the folder's lock: the kernel lists such with an arrow."""
    inode = f":{folder.stat().st_ino} "
    until = time.monotonic() + 30
    while not any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_folder_that_went_while_one_waited_for_it_is_not_held(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for put_another in (False, True):
        folder.mkdir()
        with ThreadPoolExecutor() as threads:
            with owned_now(folder) as mine:
                assert mine
                waiting = threads.submit(held, folder)
                wait_for_waiter(folder)
                folder.rmdir()
                if put_another:
                    folder.mkdir()
            assert waiting.result(30) is None


def test_a_folder_that_somebody_holds_is_not_owned(tmp_path: Path) -> None:
    assert held(tmp_path) is not None
    with owned_now(tmp_path) as mine:
        assert not mine


def test_a_folder_that_is_not_there_is_neither_held_nor_owned(tmp_path: Path) -> None:
    assert held(tmp_path / "none") is None
    with owned_now(tmp_path / "none") as mine:
        assert not mine
