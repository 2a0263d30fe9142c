# SPDX-License-Identifier: Apache-2.0
"""What one process sees of a cache that it may share with others."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.shared.storage.file_server import CONTENT, MAX_BYTES, PATH, SHA256, Server

from nereid_shared.errors import ModelInvalid, Stopped, TemporaryError, Unavailable, UserError
from nereid_shared.storage import Cache, Wanted
from nereid_shared.storage.locks import owned
from nereid_shared.storage.patience import Patience

CARD = {
    "schema": "nereid.io/model-card/v1", "name": "little", "version": "1", "task": "classification",
    "input": {
        "layout": "NHWC", "colorOrder": "RGB", "resize": "stretch", "interpolation": "linear",
        "normalization": {"unit": "unit", "mean": [0], "std": [1]},
    },
    "output": {"kind": "logits", "labels": ["no", "yes"]},
}  # fmt: skip
FOLDER = PATH.rpartition("/")[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(root: Path) -> Cache:
    return new(root)


def new(root: Path, *, max_bytes: int = MAX_BYTES) -> Cache:
    return Cache(root, max_bytes=max_bytes, stall_timeout_s=60, backoff_s=0.01)


def wanted(server: Server, *, sha256: str = SHA256, path: str = PATH, companions: bool = False) -> Wanted:
    return Wanted(url=server.url_of(path), sha256=sha256, max_bytes=MAX_BYTES, companions=companions)


def offer(server: Server, *, goldens: dict[str, bytes], version: str = "1") -> None:
    named = [{"input": name, "output": [0, 1]} for name in goldens]
    server.files = {
        PATH: CONTENT,
        f"{FOLDER}/model.json": json.dumps({**CARD, "version": version, "golden": named}).encode(),
        **{f"{FOLDER}/{name}": content for name, content in goldens.items()},
    }


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_an_artefact_is_downloaded_once_and_told_by_its_digest(server: Server, root: Path, cache: Cache) -> None:
    seen: list[tuple[int, int | None]] = []
    one = cache.obtain(wanted(server, sha256=SHA256.upper()), progress=lambda done, of: seen.append((done, of)))
    assert one.path.read_bytes() == CONTENT
    assert (one.path.name, one.digest, one.bytes) == ("little.tflite", SHA256, len(CONTENT))
    assert one.key.startswith(SHA256)
    assert one.path.parent == root / "sets" / one.key
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert new(root).obtain(wanted(server)) == one
    assert len(server.requests) == 1
    assert files(root / "parts") == set()


def test_two_urls_of_one_digest_share_a_download_and_the_disk(server: Server, root: Path, cache: Cache) -> None:
    one = cache.obtain(wanted(server))
    other = cache.obtain(wanted(server, path="/elsewhere/other.tflite"))
    assert other.path.name == "other.tflite"
    assert one.path.samefile(other.path)
    assert server.paths == [PATH]
    assert one.path.samefile(root / "blobs" / "sha256" / SHA256)


def test_two_urls_of_one_content_share_the_disk(server: Server, root: Path, cache: Cache) -> None:
    one = cache.obtain(wanted(server, sha256=""))
    other = cache.obtain(wanted(server, sha256="", path="/elsewhere/little.tflite"))
    assert len(server.paths) == 2
    assert one == other
    third = cache.obtain(wanted(server, sha256="", path="/elsewhere/other.tflite"))
    assert third.path.samefile(one.path)
    assert len(list((root / "blobs" / "sha256").iterdir())) == 1


def test_without_a_digest_the_server_is_asked_whether_it_changed(server: Server, cache: Cache) -> None:
    one = cache.obtain(wanted(server, sha256=""))
    assert cache.obtain(wanted(server, sha256="")) == one
    assert server.requests[1] == {"If-None-Match": '"one"'}
    server.content, server.etag = b"new", '"two"'
    new_one = cache.obtain(wanted(server, sha256=""))
    assert new_one.path.read_bytes() == b"new"
    assert one.path.read_bytes() == CONTENT


def test_companions_stand_beside_the_model(server: Server, cache: Cache) -> None:
    offer(server, goldens={"golden/0.png": b"0", "golden/one more.png": b"1"})
    one = cache.obtain(wanted(server, companions=True))
    assert files(one.path.parent) == {"little.tflite", "model.json", "golden/0.png", "golden/one more.png"}
    assert one.bytes == len(CONTENT)
    assert files(cache.obtain(wanted(server)).path.parent) == {"little.tflite"}


def test_a_changed_card_makes_another_set_of_the_same_model(server: Server, cache: Cache) -> None:
    offer(server, goldens={"0.png": b"0"})
    one = cache.obtain(wanted(server, companions=True))
    offer(server, goldens={"0.png": b"0"}, version="2")
    other = cache.obtain(wanted(server, companions=True))
    assert one.key != other.key
    assert '"version": "2"' in (other.path.parent / "model.json").read_text()
    assert '"version": "1"' in (one.path.parent / "model.json").read_text()
    assert one.path.samefile(other.path)


def test_a_model_without_a_card_comes_alone(server: Server, cache: Cache) -> None:
    server.files = {PATH: CONTENT}
    assert files(cache.obtain(wanted(server, companions=True)).path.parent) == {"little.tflite"}


@pytest.mark.parametrize(
    ("goldens", "reason"), [({"little.tflite/0.png": b"0"}, "CardInvalid"), ({"gone.png": None}, "ModelMissing")]
)
def test_a_card_that_names_what_cannot_be_is_refused(
    server: Server, cache: Cache, root: Path, goldens: dict[str, bytes], reason: str
) -> None:
    offer(server, goldens=goldens)
    server.files = {path: content for path, content in server.files.items() if content is not None}
    with pytest.raises(ModelInvalid) as refused:
        cache.obtain(wanted(server, companions=True))
    assert refused.value.reason == reason
    assert not (root / "sets").exists()


def test_a_card_may_name_a_golden_input_twice_and_the_model_as_one(server: Server, cache: Cache) -> None:
    offer(server, goldens={"./0.png": b"0", "0.png": b"0", "little.tflite": CONTENT})
    assert cache.obtain(wanted(server, companions=True)).path.read_bytes() == CONTENT
    assert server.paths.count(f"{FOLDER}/0.png") == 1


def test_what_is_here_serves_while_the_server_is_away(server: Server, cache: Cache) -> None:
    offer(server, goldens={"0.png": b"0"})
    one = cache.obtain(wanted(server, sha256="", companions=True))
    server.statuses = [503] * 99
    before = len(server.paths)
    assert cache.obtain(wanted(server, sha256="", companions=True)) == one
    # Asked for the model alone: who is away for one file is away for all.
    assert set(server.paths[before:]) == {PATH}
    with pytest.raises(Unavailable):
        cache.obtain(wanted(server, sha256="0" * 64))


def test_what_has_no_card_serves_while_the_server_is_away(server: Server, cache: Cache) -> None:
    server.files = {PATH: CONTENT}
    one = cache.obtain(wanted(server, companions=True))
    server.statuses = [503] * 99
    assert cache.obtain(wanted(server, companions=True)) == one


def test_half_of_a_change_is_no_change(server: Server, cache: Cache) -> None:
    offer(server, goldens={"0.png": b"0"})
    one = cache.obtain(wanted(server, sha256="", companions=True))
    offer(server, goldens={"0.png": b"0", "1.png": b"1"}, version="2")
    server.files[PATH] = b"new"
    server.away = {f"{FOLDER}/1.png"}
    assert cache.obtain(wanted(server, sha256="", companions=True)) == one
    server.away = set()
    other = cache.obtain(wanted(server, sha256="", companions=True))
    assert files(other.path.parent) == {"little.tflite", "model.json", "0.png", "1.png"}


def test_what_is_here_is_known_without_a_network(server: Server, root: Path, cache: Cache) -> None:
    offer(server, goldens={"0.png": b"0"})
    ask = wanted(server, sha256="", companions=True)
    assert cache.known(ask) is None
    one = cache.obtain(ask)
    asked = len(server.paths)
    assert new(root).known(ask) == one
    assert new(root).known(wanted(server, sha256="")) is None
    assert len(server.paths) == asked


@pytest.mark.parametrize("damaged", ["little.tflite", "model.json"])
def test_a_damaged_file_is_not_known_and_is_fetched_anew(
    server: Server, root: Path, cache: Cache, damaged: str
) -> None:
    offer(server, goldens={})
    ask = wanted(server, sha256="", companions=True)
    one = cache.obtain(ask)
    file = one.path.parent / damaged
    right = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(right[:-1] + b"?")
    assert new(root).known(ask) is None
    assert new(root).obtain(ask) == one
    assert file.read_bytes() == right
    assert new(root).known(ask) == one


def test_a_wrong_digest_gets_no_name_and_what_was_there_stays(server: Server, root: Path, cache: Cache) -> None:
    one = cache.obtain(wanted(server))
    server.content, server.etag = b"other", '"two"'
    with pytest.raises(ModelInvalid) as mismatch:
        cache.obtain(wanted(server, sha256="0" * 64))
    assert mismatch.value.reason == "DigestMismatch"
    assert one.path.read_bytes() == CONTENT
    assert {blob.name for blob in (root / "blobs" / "sha256").iterdir()} == {SHA256}
    assert {folder.name for folder in (root / "sets").iterdir()} == {one.key}


def test_a_model_above_its_limit_is_refused_from_the_cache_too(server: Server, cache: Cache) -> None:
    cache.obtain(wanted(server))
    with pytest.raises(ModelInvalid) as large:
        cache.obtain(Wanted(url=server.url, sha256=SHA256, max_bytes=9))
    assert large.value.reason == "ModelTooLarge"
    assert cache.known(Wanted(url=server.url, sha256=SHA256, max_bytes=9)) is None


def test_a_stopped_download_goes_on_in_another_cache_object(server: Server, root: Path, cache: Cache) -> None:
    came: list[int] = []
    server.stalls = 1
    with pytest.raises(Stopped):
        cache.obtain(wanted(server), progress=lambda there, _: came.append(there), stop=lambda: bool(came))
    server.go_on.set()
    assert new(root).obtain(wanted(server)).path.read_bytes() == CONTENT
    assert "Range" in server.requests[1]


def test_threads_that_want_the_same_wait_for_one_download(server: Server, root: Path, cache: Cache) -> None:
    server.stalls = 1
    waiting = threading.Event()

    def note_waiting() -> bool:
        waiting.set()  # nothing else is asked before the lock
        return False

    def second() -> Path:
        assert server.stalled.wait(30)
        return cache.obtain(wanted(server), stop=note_waiting).path

    with ThreadPoolExecutor() as threads:
        paths = [threads.submit(lambda: cache.obtain(wanted(server)).path), threads.submit(second)]
        assert waiting.wait(30)
        server.go_on.set()
        assert paths[0].result(30) == paths[1].result(30)
    assert server.paths == [PATH]


def test_waiting_for_another_download_ends_when_it_is_told_to(server: Server, root: Path, cache: Cache) -> None:
    server.stalls = 1
    with ThreadPoolExecutor() as threads:
        first = threads.submit(cache.obtain, wanted(server))
        assert server.stalled.wait(30)
        with pytest.raises(Stopped):
            new(root).obtain(wanted(server), stop=lambda: True)
        server.go_on.set()
        assert first.result(30).path.read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "0" * 63, "g" * 64])
def test_a_digest_that_is_none_is_the_users_to_mend(server: Server, cache: Cache, sha256: str) -> None:
    with pytest.raises(UserError, match="sha256sum"):
        cache.obtain(wanted(server, sha256=sha256))


@pytest.mark.parametrize("url", ["s3://models", "s3://models/", "s3:///key", "s3://models/folder/", "s3://models/.."])
def test_what_is_no_object_of_a_bucket_is_the_users_to_mend(cache: Cache, url: str) -> None:
    with pytest.raises(UserError):
        cache.obtain(Wanted(url=url, max_bytes=MAX_BYTES))


def test_what_is_on_this_node_is_used_in_place(tmp_path: Path, root: Path, cache: Cache) -> None:
    file = tmp_path / "models" / "little.tflite"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    for url in (str(file), file.as_uri()):
        one = cache.obtain(Wanted(url=url, sha256=SHA256, max_bytes=MAX_BYTES, companions=True))
        assert (one.path, one.digest, one.bytes, one.key) == (file, SHA256, len(CONTENT), "")
    folder = cache.obtain(Wanted(url=str(file.parent), sha256=SHA256, max_bytes=MAX_BYTES))
    assert (folder.path, folder.digest) == (file.parent, SHA256)
    assert not root.exists()


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (Wanted(url="gone.tflite", max_bytes=MAX_BYTES), "ModelMissing"),
        (Wanted(url="little.tflite", sha256="0" * 64, max_bytes=MAX_BYTES), "DigestMismatch"),
        (Wanted(url="little.tflite", max_bytes=10), "ModelTooLarge"),
        (Wanted(url="empty", sha256=SHA256, max_bytes=MAX_BYTES), "ModelMissing"),
    ],
)
def test_what_is_wrong_with_a_path_is_said(tmp_path: Path, cache: Cache, ask: Wanted, reason: str) -> None:
    (tmp_path / "little.tflite").write_bytes(CONTENT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelInvalid) as wrong:
        cache.obtain(replace(ask, url=str(tmp_path / ask.url)))
    assert wrong.value.reason == reason


def test_a_folder_of_another_kind_of_model_has_no_digest(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "saved_model.pb").touch()
    assert cache.obtain(Wanted(url=str(tmp_path), max_bytes=MAX_BYTES)).digest == ""


def test_a_root_that_its_maker_has_locked_is_as_good(server: Server, root: Path, cache: Cache) -> None:
    with owned(root, Patience()):
        assert cache.obtain(wanted(server)).path.read_bytes() == CONTENT
        assert cache.collect([]) == 0


def test_a_cache_that_cannot_be_written_is_to_be_tried_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TemporaryError, match="file") as failed:
        new(tmp_path / "file" / "cache").obtain(wanted(server))
    assert failed.value.delay_s == 60


def numbered(server: Server, number: int) -> Wanted:
    """Offer an artefact of 1,000 bytes."""
    server.files[f"/{number}"] = bytes([number]) * 1000
    return Wanted(url=server.url_of(f"/{number}"), max_bytes=MAX_BYTES)


def fill(server: Server, root: Path, *, numbers: range) -> list[str]:
    """Have artefacts obtained in turn, and held no longer; returns their keys."""
    cache = new(root)
    keys = [cache.obtain(numbered(server, number)).key for number in numbers]
    cache.close()
    return keys


def left(root: Path) -> list[str]:
    return sorted(folder.name for folder in (root / "sets").iterdir())


def test_what_was_not_used_for_longest_is_evicted_first(server: Server, root: Path) -> None:
    keys = fill(server, root, numbers=range(4))
    user = new(root)
    assert user.known(numbered(server, 0))
    user.close()
    cache = new(root, max_bytes=2500)
    assert cache.collect([]) == 2000
    assert left(root) == sorted([keys[0], keys[3]])
    assert len(files(root / "blobs")) == 2
    assert len(files(root / "urls")) == len(files(root / "known")) == 2
    assert cache.collect([]) == 0


def test_what_is_to_be_kept_stays_beyond_the_bound(server: Server, root: Path) -> None:
    keys = fill(server, root, numbers=range(3))
    digest_alone = hashlib.sha256(bytes([0]) * 1000).hexdigest()
    assert new(root, max_bytes=1000).collect([keys[1], digest_alone]) == 1000
    assert left(root) == sorted(keys[:2])


def test_what_came_since_the_last_collection_stays_once(server: Server, root: Path) -> None:
    cache = new(root, max_bytes=0)
    keys = [cache.obtain(numbered(server, number)).key for number in range(2)]
    assert cache.collect([keys[0]]) == 0
    assert cache.collect([keys[0]]) == 1000
    assert left(root) == keys[:1]
    assert cache.known(numbered(server, 0))
    assert cache.collect([]) == 0
    assert cache.collect([]) == 1000


def test_what_another_holds_stays_until_it_lets_go(server: Server, root: Path) -> None:
    other, cache = new(root), new(root, max_bytes=0)
    key = other.obtain(numbered(server, 0)).key
    assert cache.collect([]) == 0
    assert left(root) == [key]
    other.close()
    assert cache.collect([]) == 1000
    assert left(root) == []
    assert other.obtain(numbered(server, 0)).key == key


def test_a_shared_file_is_freed_with_its_last_set(server: Server, root: Path) -> None:
    user, cache = new(root), new(root, max_bytes=0)
    one = user.obtain(wanted(server))
    user.obtain(wanted(server, path="/elsewhere/other.tflite"))
    user.close()
    assert cache.collect([one.key]) == 0
    assert left(root) == [one.key]
    assert one.path.read_bytes() == CONTENT
    assert cache.collect([]) == len(CONTENT)


def test_a_cut_download_is_evicted_but_none_under_way(server: Server, root: Path, cache: Cache) -> None:
    server.stalls = 2
    came: list[int] = []
    with pytest.raises(Stopped):
        cache.obtain(wanted(server), progress=lambda there, _: came.append(there), stop=lambda: bool(came))
    server.stalled.clear()
    with ThreadPoolExecutor() as threads:
        under_way = threads.submit(cache.obtain, wanted(server, sha256=""))
        assert server.stalled.wait(30)
        assert new(root, max_bytes=0).collect([]) >= came[0]
        assert len(list((root / "parts").iterdir())) == 1
        server.go_on.set()
        assert under_way.result(30).path.read_bytes() == CONTENT


def test_what_a_killed_process_left_half_removed_is_removed(server: Server, root: Path, cache: Cache) -> None:
    [key] = fill(server, root, numbers=range(1))
    leaving = (root / "sets" / key).rename(root / "sets" / f".leaving-{key}")
    (root / "known" / ".new-x").touch()
    assert cache.collect([]) == 0
    assert not leaving.exists()
    assert not (root / "known" / ".new-x").exists()
    assert left(root) == []
    assert fill(server, root, numbers=range(1)) == [key]


def test_collecting_an_empty_cache_frees_nothing(cache: Cache) -> None:
    assert cache.collect([]) == 0
