# SPDX-License-Identifier: Apache-2.0
"""Fetching models from a real HTTP server that cuts, stalls, lies and goes away."""

import hashlib
import http.server
import shutil
import threading
from pathlib import Path

import pytest
from tests.shared.storage.file_server import CONTENT, MAX_BYTES, SHA256, Server

from nereid_shared.errors import ModelInvalid, Stopped, TemporaryError, Unavailable, UserError
from nereid_shared.storage import fetch
from nereid_shared.storage.checks import require_room


def get(server: Server, into: Path, *, sha256: str | None = SHA256, max_bytes: int = MAX_BYTES) -> Path:
    return fetch(server.url, into=into, sha256=sha256, max_bytes=max_bytes, backoff_s=0.01)


def interrupt(server: Server, into: Path, *, url: str = "") -> None:
    """Begin a download and stop it after its first bytes."""
    came: list[int] = []
    server.stalls = 1
    with pytest.raises(Stopped):
        fetch(
            url or server.url, into=into, sha256=SHA256, max_bytes=MAX_BYTES,
            progress=lambda there, _: came.append(there), stop=lambda: bool(came),
        )  # fmt: skip
    server.go_on.set()


def test_a_path_is_returned_in_place(tmp_path: Path) -> None:
    model = tmp_path / "a model.tflite"
    model.write_bytes(CONTENT)
    into = tmp_path / "downloads"
    for url in (str(model), model.as_uri()):
        assert fetch(url, into=into, sha256=SHA256.upper(), max_bytes=MAX_BYTES) == model
    assert not into.exists()


def test_a_path_that_is_wrong_says_how(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    with pytest.raises(ModelInvalid, match="no such file") as missing:
        fetch(str(model), into=tmp_path, sha256=None, max_bytes=MAX_BYTES)
    assert missing.value.reason == "ModelMissing"
    model.write_bytes(CONTENT)
    with pytest.raises(ModelInvalid) as mismatch:
        fetch(str(model), into=tmp_path, sha256="0" * 64, max_bytes=MAX_BYTES)
    assert mismatch.value.reason == "DigestMismatch"
    with pytest.raises(ModelInvalid) as large:
        fetch(str(model), into=tmp_path, sha256=None, max_bytes=10)
    assert large.value.reason == "ModelTooLarge"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/model", "http://host", "http://host/..", "file://h/x", "http:///model", "http://host:port/model",
        "http://host:99999/model", "http://[::1/model", "https://host/" + "m" * 201, "https://host/a%0Ab",
    ],
)  # fmt: skip
def test_a_url_of_another_kind_is_the_users_to_mend(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"file:///|https://"):
        fetch(url, into=tmp_path, sha256=None, max_bytes=MAX_BYTES)


def test_a_password_in_a_url_is_refused_and_not_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="signed URL") as refused:
        fetch("https://user:pass@host/model", into=tmp_path, sha256=None, max_bytes=MAX_BYTES)
    assert "pass@" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://host/my model", "http://host/größe"])
def test_a_url_that_is_not_encoded_is_the_users_to_mend(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="%XX"):
        fetch(url, into=tmp_path, sha256=None, max_bytes=MAX_BYTES)


def test_a_download_lands_under_its_name_and_is_not_repeated(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    into = tmp_path / "models"
    path = fetch(
        server.url, into=into, sha256=SHA256, max_bytes=MAX_BYTES, progress=lambda done, of: seen.append((done, of))
    )
    assert path == into / "little.tflite"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert get(server, into) == path
    assert len(server.requests) == 1
    assert not list(into.glob("*.part*"))


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = 3
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [
        {},
        *({"Range": f"bytes={n * 300_000}-", "If-Range": '"one"'} for n in (1, 2, 3)),
    ]


def test_a_stalled_download_is_given_up_and_resumed(server: Server, tmp_path: Path) -> None:
    server.stalls = 99

    def flow_again(done: int, _: int | None) -> None:
        if done >= 300_000:
            server.stalls = 0

    path = fetch(
        server.url, into=tmp_path, sha256=SHA256, max_bytes=MAX_BYTES, stall_timeout_s=1.0, backoff_s=0.01,
        progress=flow_again,
    )  # fmt: skip
    assert path.read_bytes() == CONTENT
    assert server.requests[-1].keys() == {"Range", "If-Range"}


def test_a_download_goes_on_after_a_restart(server: Server, tmp_path: Path) -> None:
    server.cuts = 1
    server.statuses = []

    def stop(done: int, _: int | None) -> None:
        if done >= 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, into=tmp_path, sha256=SHA256, max_bytes=MAX_BYTES, progress=stop)
    server.cuts = 0
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == "bytes=300000-"


def test_a_file_that_changed_meanwhile_is_taken_from_its_start(server: Server, tmp_path: Path) -> None:
    server.cuts = 1

    def change(done: int, _: int | None) -> None:
        if done >= 300_000 and server.etag == '"one"':
            server.content, server.etag = CONTENT[::-1], '"two"'

    path = fetch(server.url, into=tmp_path, sha256=None, max_bytes=MAX_BYTES, backoff_s=0.01, progress=change)
    assert path.read_bytes() == CONTENT[::-1]


def test_without_a_validator_the_digest_guards_a_resumed_download(server: Server, tmp_path: Path) -> None:
    server.etag = None
    server.cuts = 1
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[1] == {"Range": "bytes=300000-"}


def test_without_validator_and_digest_a_cut_download_starts_anew(server: Server, tmp_path: Path) -> None:
    server.etag = None
    server.cuts = 1
    assert get(server, tmp_path, sha256=None).read_bytes() == CONTENT
    assert server.requests[1] == {}


def test_a_wrong_digest_never_lands(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match=SHA256) as mismatch:
        get(server, tmp_path, sha256="0" * 64)
    assert mismatch.value.reason == "DigestMismatch"
    assert list(tmp_path.iterdir()) == []


def test_a_new_digest_replaces_the_file_only_when_it_is_whole(server: Server, tmp_path: Path) -> None:
    old = get(server, tmp_path)
    server.content, server.etag = b"new" * 1000, '"two"'
    with pytest.raises(ModelInvalid):
        get(server, tmp_path, sha256="0" * 64)
    assert old.read_bytes() == CONTENT
    assert get(server, tmp_path, sha256=hashlib.sha256(b"new" * 1000).hexdigest()).read_bytes() == b"new" * 1000


def test_without_a_digest_the_server_is_asked_whether_it_changed(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path, sha256=None)
    assert get(server, tmp_path, sha256=None) == path
    assert server.requests[1] == {"If-None-Match": '"one"'}
    server.content, server.etag = b"new", '"two"'
    assert get(server, tmp_path, sha256=None).read_bytes() == b"new"


def test_without_a_digest_an_earlier_copy_serves_when_the_server_is_away(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path, sha256=None)
    server.statuses = [503] * 99
    assert get(server, tmp_path, sha256=None) == path
    with pytest.raises(Unavailable, match="503"):
        get(server, tmp_path, sha256="0" * 64)


def test_server_errors_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [500, 503, 429]
    assert get(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "reason"), [(404, "ModelMissing"), (403, "ModelForbidden")])
def test_what_the_server_does_not_give_is_said_at_once(
    server: Server, tmp_path: Path, status: int, reason: str
) -> None:
    server.statuses = [status]
    with pytest.raises(ModelInvalid, match=str(status)) as refused:
        get(server, tmp_path)
    assert refused.value.reason == reason
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 400])
def test_a_bucket_of_another_region_is_said(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses, server.region = [status], "eu-west-1"
    with pytest.raises(ModelInvalid, match="eu-west-1; set AWS_REGION"):
        get(server, tmp_path)


def test_another_url_of_the_same_name_is_not_the_earlier_copy(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path, sha256=None)
    fetch(server.url_of("/elsewhere/little.tflite"), into=tmp_path, sha256=None, max_bytes=MAX_BYTES)
    assert server.requests == [{}, {}]


def test_a_disk_is_never_filled_to_its_last_byte(tmp_path: Path) -> None:
    with pytest.raises(TemporaryError):
        require_room(shutil.disk_usage(tmp_path).free - 1, tmp_path, "model")
    require_room(0, tmp_path, "model")


@pytest.mark.parametrize("lengths", [True, False])
def test_a_file_above_the_limit_is_not_kept(server: Server, tmp_path: Path, lengths: bool) -> None:
    server.lengths = lengths
    with pytest.raises(ModelInvalid) as large:
        get(server, tmp_path, max_bytes=400_000)
    assert large.value.reason == "ModelTooLarge"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_disk_cannot_hold_is_refused_before_it_comes(server: Server, tmp_path: Path) -> None:
    server.claimed_bytes = 2**60
    with pytest.raises(TemporaryError, match="free in") as full:
        get(server, tmp_path, max_bytes=2**61)
    assert full.value.delay_s == 60


def test_a_redirect_leaves_http_for_nothing_else(tmp_path: Path) -> None:
    class Redirect(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/model")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Redirect) as redirecting:
        thread = threading.Thread(target=redirecting.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with pytest.raises(Unavailable, match="ftp"):
            fetch(
                f"http://127.0.0.1:{redirecting.server_address[1]}/m", into=tmp_path, sha256=None,
                max_bytes=9, backoff_s=0.01,
            )  # fmt: skip
        redirecting.shutdown()
        thread.join()


def test_a_stalled_download_ends_when_it_is_told_to_and_keeps_what_came(server: Server, tmp_path: Path) -> None:
    interrupt(server, tmp_path)
    part = tmp_path / "little.tflite.part"
    kept = part.stat().st_size
    assert part.read_bytes() == CONTENT[:kept]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == f"bytes={kept}-"


def test_waiting_for_the_next_try_ends_when_it_is_told_to(server: Server, tmp_path: Path) -> None:
    server.statuses = [503] * 9
    with pytest.raises(Stopped):
        fetch(
            server.url, into=tmp_path, sha256=SHA256, max_bytes=MAX_BYTES, backoff_s=60,
            stop=lambda: len(server.requests) == 1,
        )  # fmt: skip


def test_a_download_cut_at_its_last_bytes_asks_for_them_alone(server: Server, tmp_path: Path) -> None:
    server.cuts, server.cut_after = 1, len(CONTENT) - 10
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == f"bytes={len(CONTENT) - 10}-"


def test_the_rest_of_another_file_is_not_put_behind_the_part(server: Server, tmp_path: Path) -> None:
    server.cuts, server.ignores_if_range = 1, True

    def change(done: int, _: int | None) -> None:
        if done >= 300_000 and server.etag == '"one"':
            server.content, server.etag = CONTENT[::-1], '"two"'

    path = fetch(server.url, into=tmp_path, sha256=None, max_bytes=MAX_BYTES, backoff_s=0.01, progress=change)
    assert path.read_bytes() == CONTENT[::-1]


def test_a_rest_that_begins_elsewhere_is_not_put_behind_the_part(server: Server, tmp_path: Path) -> None:
    server.cuts, server.shift = 1, 7
    assert get(server, tmp_path, sha256=None).read_bytes() == CONTENT
    assert [list(asked) for asked in server.requests] == [[], ["Range", "If-Range"], []]


@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_part_that_is_damaged_costs_one_more_download(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.etag = etag
    interrupt(server, tmp_path)
    (tmp_path / "little.tflite.part").write_bytes(bytes(1000))
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == "bytes=1000-"
    assert server.requests[2:] == [{}]


def test_a_part_of_another_url_goes_on_where_the_digest_guards_it(server: Server, tmp_path: Path) -> None:
    signed = [f"{server.url}?signature={number}" for number in (1, 2)]
    interrupt(server, tmp_path, url=signed[0])
    assert fetch(signed[1], into=tmp_path, sha256=SHA256, max_bytes=MAX_BYTES).read_bytes() == CONTENT
    assert list(server.requests[1]) == ["Range"]


def test_a_whole_part_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "little.tflite.part").write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == []


def test_a_length_that_is_too_short_is_found_by_the_digest(server: Server, tmp_path: Path) -> None:
    server.claimed_bytes = 1000
    with pytest.raises(ModelInvalid) as mismatch:
        get(server, tmp_path)
    assert mismatch.value.reason == "DigestMismatch"
    assert len(server.requests) == 1


def test_a_length_that_is_too_long_is_not_tried_for_ever(server: Server, tmp_path: Path) -> None:
    server.claimed_bytes = len(CONTENT) + 1
    with pytest.raises(Unavailable, match=r"ended at|does not fit"):
        get(server, tmp_path, sha256=None)


def test_without_a_length_a_cut_is_found_by_the_digest(server: Server, tmp_path: Path) -> None:
    server.lengths, server.cuts, server.etag = False, 1, None
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_signature_in_a_url_is_not_told(server: Server, tmp_path: Path) -> None:
    server.statuses = [403]
    with pytest.raises(ModelInvalid) as refused:
        fetch(f"{server.url}?secret", into=tmp_path, sha256=None, max_bytes=MAX_BYTES)
    assert "secret" not in str(refused.value)


def test_a_silent_connection_ends_when_it_is_told_to(server: Server, tmp_path: Path) -> None:
    server.stalls = 1
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += server.stalled.is_set()
        return looks > 5

    with pytest.raises(Stopped):
        fetch(server.url, into=tmp_path, sha256=SHA256, max_bytes=MAX_BYTES, stall_timeout_s=1000, stop=stop)
