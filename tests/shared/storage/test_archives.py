# SPDX-License-Identifier: Apache-2.0
"""Archives as models come in them, and as somebody makes them who wants to write elsewhere or fill a disk."""

import contextlib
import gzip
import hashlib
import io
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.shared.storage.file_server import Server

from nereid_shared.errors import ModelInvalid, Stopped, TemporaryError
from nereid_shared.storage import Cache, Wanted
from nereid_shared.storage.archives import MAX_ENTRIES, unpack
from nereid_shared.storage.patience import Patience

MAX_BYTES = 64 * 1024**2
FILES = {"saved_model.pb": b"graph" * 1000, "variables/variables.data": bytes(range(256)) * 40, "deep/a/b/c.txt": b""}

Entry = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"x", **attributes: object) -> Entry:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for key, value in attributes.items():
        setattr(entry, key, value)
    return entry, content


def special(name: str, kind: bytes, **attributes: object) -> Entry:
    return file(name, b"", type=kind, **attributes)


def tar_of(*entries: Entry, into: Path, **options: object) -> Path:
    path = into / "model.tar.gz"
    with tarfile.open(path, "w:gz", **options) as archive:  # type: ignore[call-overload] # the format alone
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    return path


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes], into: Path) -> Path:
    path = into / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


def zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return entry


def unpacked(archive: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, bytes]:
    into = archive.parent / "unpacked"
    digests = unpack(archive, into=into, max_bytes=max_bytes, patience=Patience())
    found = {str(one.relative_to(into)): one.read_bytes() for one in into.rglob("*") if one.is_file()}
    assert digests == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_becomes_plain_files(tmp_path: Path, form: int) -> None:
    long_name = "/".join(["n" * 90] * 2)
    entries = [file(name, content, mode=0o777) for name, content in FILES.items()]
    archive = tar_of(
        special("./", tarfile.DIRTYPE), special("./variables/", tarfile.DIRTYPE), *entries, file(f"./{long_name}"),
        into=tmp_path, format=form,
    )  # fmt: skip
    assert unpacked(archive) == {**FILES, long_name: b"x"}
    assert stat.S_IMODE((tmp_path / "unpacked" / "saved_model.pb").stat().st_mode) == 0o444


def test_a_zip_becomes_plain_files(tmp_path: Path) -> None:
    archive = zip_of(
        ("variables/", b""), *FILES.items(), (zip_entry("run.sh", stat.S_IFREG | 0o755), b"x"), into=tmp_path
    )
    assert unpacked(archive) == {**FILES, "run.sh": b"x"}
    assert stat.S_IMODE((tmp_path / "unpacked" / "run.sh").stat().st_mode) == 0o444


NAMES = [
    "../outside", "a/../../outside", "/absolute", "a\\..\\b", "a\nb", "a\x00b", "..", "", ".", "n" * 256,
    "a/" * 32 + "b", "/".join(["n" * 200] * 6),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", ["tar", "zip"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str, make: str) -> None:
    if make == "tar" and "\x00" in name:
        name = name.replace("\x00", "\x7f")  # a tar's name ends at its first NUL
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name
    inside = tmp_path / "in"
    inside.mkdir()
    archive = tar_of(file(name), into=inside) if make == "tar" else zip_of((entry, b"x"), into=inside)
    with pytest.raises(ModelInvalid) as refused:
        unpacked(archive)
    assert refused.value.reason == "ArchiveInvalid"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert not [path for path in inside.rglob("*") if path.is_file() and path != archive]


SPECIALS: dict[str, Entry] = {
    "symlink": special("link", tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": special("link", tarfile.LNKTYPE, linkname="model"),
    "character device": special("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": special("disk", tarfile.BLKTYPE, devmajor=8),
    "pipe": special("pipe", tarfile.FIFOTYPE),
    "unknown": special("what", b"Z"),
    "sparse": special("holes", tarfile.GNUTYPE_SPARSE),
}


@pytest.mark.parametrize("kind", SPECIALS)
def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ModelInvalid, match=r"link, a device|unpacked") as refused:
        unpacked(tar_of(file("model"), SPECIALS[kind], into=tmp_path))
    assert refused.value.reason == "ArchiveInvalid"


def test_a_link_of_a_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="link"):
        unpacked(zip_of((zip_entry("link", stat.S_IFLNK | 0o777), b"/etc/passwd"), into=tmp_path))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zip_of(("model", b"x"), into=tmp_path)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(ModelInvalid, match="encrypted"):
        unpacked(archive)


TWICE = [
    ("model", "model"), ("Model", "model"), ("./model", "model"), ("stra\u00dfe", "STRASSE"),
    ("\u00e9", "e\u0301"), ("a", "a/b"), ("a/b", "a"), ("A/one", "a/two"),
]  # fmt: skip


@pytest.mark.parametrize("names", TWICE)
@pytest.mark.parametrize("make", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_a_file_system_may_take_for_one_are_refused(
    tmp_path: Path, names: tuple[str, str], make: str
) -> None:
    if make == "tar":
        archive = tar_of(*map(file, names), into=tmp_path)
    else:
        archive = zip_of(*((name, b"x") for name in names), into=tmp_path)
    with pytest.raises(ModelInvalid, match="twice"):
        unpacked(archive)


def bomb(make: str, content: bytes, into: Path) -> Path:
    return tar_of(file("zeros", content), into=into) if make == "tar" else zip_of(("zeros", content), into=into)


@pytest.mark.parametrize("make", ["tar", "zip"])
def test_what_grows_beyond_its_limit_is_refused(tmp_path: Path, make: str) -> None:
    archive = bomb(make, bytes(1_000_001), tmp_path)
    with pytest.raises(ModelInvalid) as refused:
        unpacked(archive, max_bytes=1_000_000)
    assert refused.value.reason == "ModelTooLarge"


@pytest.mark.parametrize("make", ["tar", "zip"])
def test_what_grows_out_of_nothing_is_refused(tmp_path: Path, make: str) -> None:
    with pytest.raises(ModelInvalid, match="times its size"):
        unpacked(bomb(make, bytes(20 * 1024**2), tmp_path))
    assert unpacked_bytes(tmp_path) <= 16 * 1024**2


def unpacked_bytes(folder: Path) -> int:
    return sum(one.stat().st_size for one in (folder / "unpacked").rglob("*") if one.is_file())


@pytest.mark.parametrize("make", ["tar", "zip"])
def test_too_many_entries_are_refused(tmp_path: Path, make: str) -> None:
    names = [f"{number}/" + "/".join(["deep"] * 31) + "/" for number in range(MAX_ENTRIES // 32 + 1)]
    if make == "tar":
        archive = tar_of(*(special(name, tarfile.DIRTYPE) for name in names), into=tmp_path)
    else:
        archive = zip_of(*((name, b"") for name in names), into=tmp_path)
    with pytest.raises(ModelInvalid, match="more than"):
        unpacked(archive)


def test_a_long_header_is_not_read_into_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)))
    with pytest.raises(ModelInvalid, match="header is too long"):
        unpacked(archive)


def test_endless_headers_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 0
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) * 100_000))
    with pytest.raises(ModelInvalid, match="cannot be unpacked"):
        unpacked(archive)


def test_a_long_directory_is_not_read_into_memory(tmp_path: Path) -> None:
    archive = tmp_path / "model.zip"
    size = 4 * 1024**2
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0)
    archive.write_bytes(bytes(size) + end)
    with pytest.raises(ModelInvalid, match="directory is too long"):
        unpacked(archive)


def test_a_directory_that_points_before_the_archive_is_refused(tmp_path: Path) -> None:
    archive = zip_of(("model", b"x"), into=tmp_path)
    content = bytearray(archive.read_bytes())
    content[-6:-2] = struct.pack("<L", struct.unpack("<L", content[-6:-2])[0] + 1000)  # where the directory is
    archive.write_bytes(content)
    with pytest.raises(ModelInvalid, match="before its beginning"):
        unpacked(archive)


def test_what_follows_the_end_of_a_tar_is_refused(tmp_path: Path) -> None:
    archive = tar_of(file("model"), into=tmp_path)
    with archive.open("ab") as stream:
        stream.write(gzip.compress(bytes(1024**2)))
    with pytest.raises(ModelInvalid, match="follows"):
        unpacked(archive)


@pytest.mark.parametrize("make", ["tar", "zip"])
@pytest.mark.parametrize("kept", [0, 10, -9])
def test_a_cut_archive_is_refused(tmp_path: Path, make: str, kept: int) -> None:
    archive = bomb(make, bytes(range(256)) * 100, tmp_path)
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(ModelInvalid) as refused:
        unpacked(archive)
    assert refused.value.reason == "ArchiveInvalid"


@pytest.mark.parametrize("make", ["tar", "zip"])
def test_an_archive_without_a_file_is_refused(tmp_path: Path, make: str) -> None:
    archive = tar_of(special("folder", tarfile.DIRTYPE), into=tmp_path) if make == "tar" else zip_of(into=tmp_path)
    with pytest.raises(ModelInvalid, match="no file"):
        unpacked(archive)


def test_a_size_that_the_disk_cannot_hold_is_refused_before_it_comes(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("model")
    entry.size = 2**45
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)))
    with pytest.raises(TemporaryError, match="free in"):
        unpacked(archive, max_bytes=2**46)
    with pytest.raises(ModelInvalid) as large:
        unpack(archive, into=tmp_path / "other", max_bytes=MAX_BYTES, patience=Patience())
    assert large.value.reason == "ModelTooLarge"


def test_unpacking_ends_when_it_is_told_to(tmp_path: Path) -> None:
    archive = bomb("tar", bytes(range(256)) * 100, tmp_path)
    with pytest.raises(Stopped):
        unpack(archive, into=tmp_path / "into", max_bytes=MAX_BYTES, patience=Patience(stop=lambda: True))


@pytest.mark.parametrize("make", [tar_of, zip_of])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=8), inner=st.booleans()
)
def test_a_damaged_archive_is_refused_or_unpacked_and_nothing_else(
    tmp_path: Path, make: Callable[..., Path], flips: list[tuple[int, int]], inner: bool
) -> None:
    shutil.rmtree(tmp_path / "unpacked", ignore_errors=True)
    if make is tar_of:
        archive = tar_of(*(file(*one) for one in FILES.items()), into=tmp_path)
    else:
        archive = zip_of(*FILES.items(), into=tmp_path)
    packed = make is tar_of and inner  # damage below the checksum of gzip
    content = bytearray(gzip.decompress(archive.read_bytes()) if packed else archive.read_bytes())
    for place, change in flips:
        content[place % len(content)] ^= change
    archive.write_bytes(gzip.compress(bytes(content)) if packed else content)
    with contextlib.suppress(ModelInvalid):
        unpacked(archive)
    assert {path.name for path in tmp_path.iterdir()} <= {archive.name, "unpacked"}


def served(server: Server, tmp_path: Path, files: dict[str, bytes]) -> str:
    made = tmp_path / "made"
    made.mkdir(exist_ok=True)
    server.files["/model.tar.gz"] = tar_of(*(file(*one) for one in files.items()), into=made).read_bytes()
    return server.url_of("/model.tar.gz")


def names(folder: Path) -> set[str]:
    return {str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()}


def test_the_cache_unpacks_an_archive_once(server: Server, tmp_path: Path) -> None:
    url = served(server, tmp_path, FILES)
    sha256 = hashlib.sha256(server.files["/model.tar.gz"]).hexdigest()
    root = tmp_path / "cache"
    for pinned in (sha256, ""):
        ask = Wanted(url=url, sha256=pinned, max_bytes=MAX_BYTES)
        one = Cache(root, max_bytes=0).obtain(ask)
        assert (one.digest, one.bytes) == (sha256, len(server.files["/model.tar.gz"]))
        assert names(one.path) == set(FILES)
        cache = Cache(root, max_bytes=0)
        assert cache.known(ask) == one
        assert cache.collect([one.key]) in {0, one.bytes}  # the archive itself can go
        assert cache.obtain(ask) == one
    assert server.requests == [{}, {}, {"If-None-Match": f'"{sha256}"'}]
    assert names(root / "parts") == set()


def test_a_packed_folder_is_as_good_as_what_is_in_it(server: Server, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=MAX_BYTES)
    url = served(server, tmp_path, {f"./export/little/{name}": content for name, content in FILES.items()})
    one = cache.obtain(Wanted(url=url, max_bytes=MAX_BYTES))
    assert names(one.path) == set(FILES)
    assert cache.known(Wanted(url=url, max_bytes=MAX_BYTES)) == one


def test_an_archive_that_changed_is_unpacked_beside_the_former(server: Server, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=MAX_BYTES)
    one = cache.obtain(Wanted(url=served(server, tmp_path, FILES), max_bytes=MAX_BYTES))
    other = cache.obtain(Wanted(url=served(server, tmp_path, {"new": b"new"}), max_bytes=MAX_BYTES))
    assert (names(one.path), names(other.path)) == (set(FILES), {"new"})


def test_a_damaged_tree_is_mended_from_the_archive(server: Server, tmp_path: Path) -> None:
    ask = Wanted(url=served(server, tmp_path, FILES), max_bytes=MAX_BYTES)
    one = Cache(tmp_path / "cache", max_bytes=MAX_BYTES).obtain(ask)
    damaged = one.path / "saved_model.pb"
    damaged.chmod(0o644)
    damaged.write_bytes(b"?")
    cache = Cache(tmp_path / "cache", max_bytes=MAX_BYTES)
    assert cache.known(ask) is None
    assert cache.obtain(ask) == one
    assert damaged.read_bytes() == FILES["saved_model.pb"]
    assert len([asked for asked in server.requests if not asked]) == 1


def test_a_refused_archive_leaves_no_set(server: Server, tmp_path: Path) -> None:
    ask = Wanted(url=served(server, tmp_path, {"../outside": b"x"}), max_bytes=MAX_BYTES)
    cache = Cache(tmp_path / "cache", max_bytes=MAX_BYTES)
    for _ in range(2):
        with pytest.raises(ModelInvalid, match="no path below"):
            cache.obtain(ask)
    assert not (tmp_path / "cache" / "sets").exists()
    assert names(tmp_path / "cache" / "parts") == set()
    assert len([asked for asked in server.requests if not asked]) == 1


def test_an_archive_on_this_node_is_unpacked_into_the_cache(tmp_path: Path) -> None:
    archive = tar_of(*(file(*one) for one in FILES.items()), into=tmp_path)
    cache = Cache(tmp_path / "cache", max_bytes=MAX_BYTES)
    one = cache.obtain(Wanted(url=str(archive), max_bytes=MAX_BYTES))
    assert names(one.path) == set(FILES)
    assert one.path.is_relative_to(tmp_path / "cache")
    assert cache.obtain(Wanted(url=archive.as_uri(), max_bytes=MAX_BYTES)).path == one.path
