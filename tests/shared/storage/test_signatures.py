# SPDX-License-Identifier: Apache-2.0
"""Signatures that OpenSSF's own tool made (``signed/``), and some that nobody should take for one."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.shared.storage.file_server import Server

from nereid_shared.errors import ModelInvalid, UserError
from nereid_shared.storage import Cache, Wanted
from nereid_shared.storage.signatures import verify

SIGNED = Path(__file__).with_name("signed")
KEY = (SIGNED / "key.pub").read_text()
MODEL = (SIGNED / "little.tflite").read_bytes()
DIGEST = hashlib.sha256(MODEL).hexdigest()
FILES = {"little.tflite": DIGEST}
RESOURCE = {"name": "little.tflite", "algorithm": "sha256", "digest": DIGEST}
MINE = ec.generate_private_key(ec.SECP256R1())
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def offer(server: Server, **changed: bytes | None) -> Wanted:
    """Offer the signed model, with some of its files changed, or left out."""
    names = ["little.tflite", "model.json", "golden/0.png", "model.sig"]
    files = {name: changed.get(name, (SIGNED / name).read_bytes()) for name in names}
    server.files = {f"/m/{name}": content for name, content in files.items() if content is not None}
    return Wanted(url=server.url_of("/m/little.tflite"), max_bytes=10**6, companions=True, public_key=KEY)


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def statement(**changed: Any) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"resources": [RESOURCE]},
        **changed,
    }


def bundle(key: ec.EllipticCurvePrivateKey, said: Any, *, kind: str = PAYLOAD_TYPE, times: int = 1) -> bytes:
    digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.key_size]
    payload = json.dumps(said).encode()
    signature = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload), ec.ECDSA(digest))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode()}] * times,
    }
    return json.dumps({"dsseEnvelope": envelope}).encode()


def check(signature: bytes, *, key: str, files: dict[str, str] | None = None) -> None:
    verify(signature, public_key=key, artefact=DIGEST, files=FILES if files is None else files, where="m")


def test_a_signed_folder_comes_with_its_signature(server: Server, tmp_path: Path) -> None:
    one = Cache(tmp_path, max_bytes=10**6).obtain(offer(server))
    assert {file.name for file in one.path.parent.iterdir()} == {"little.tflite", "model.json", "golden", "model.sig"}


@pytest.mark.parametrize("name", ["little.tflite", "model.json", "golden/0.png"])
def test_a_file_that_was_changed_after_signing_never_gets_a_name(server: Server, tmp_path: Path, name: str) -> None:
    changed = (SIGNED / name).read_bytes() + b" "
    with pytest.raises(ModelInvalid, match=f"{name} is not what was signed") as refused:
        Cache(tmp_path, max_bytes=10**6).obtain(offer(server, **{name: changed}))
    assert refused.value.reason == "SignatureInvalid"
    assert not (tmp_path / "sets").exists()


def test_a_model_without_its_signature_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid) as refused:
        Cache(tmp_path, max_bytes=10**6).obtain(offer(server, **{"model.sig": None}))
    assert refused.value.reason == "SignatureMissing"


def test_what_came_unsigned_is_not_known_as_signed(server: Server, tmp_path: Path) -> None:
    wanted = offer(server)
    unsigned = Wanted(url=wanted.url, max_bytes=10**6, companions=True)
    cache = Cache(tmp_path, max_bytes=10**6)
    cache.obtain(unsigned)
    assert cache.known(unsigned)
    assert cache.known(wanted) is None


def test_the_signature_of_the_file_alone_does(server: Server, tmp_path: Path) -> None:
    alone = (SIGNED / "little.tflite.sig").read_bytes()
    assert Cache(tmp_path, max_bytes=10**6).obtain(offer(server, **{"model.sig": alone}))
    with pytest.raises(ModelInvalid, match=r"little\.tflite is not"):
        verify(alone, public_key=KEY, artefact="0" * 64, files=FILES, where="m")


def test_a_signed_model_is_used_in_place_only_as_it_was_signed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SIGNED, tmp_path / "m"))
    cache = Cache(tmp_path / "cache", max_bytes=10**6)
    wanted = Wanted(url=str(folder / "little.tflite"), max_bytes=10**6, companions=True, public_key=KEY)
    assert cache.obtain(wanted).digest == DIGEST
    (folder / "golden" / "0.png").write_bytes(b"another")
    with pytest.raises(ModelInvalid, match=r"0\.png is not what was signed"):
        cache.obtain(wanted)
    (folder / "model.sig").unlink()
    with pytest.raises(ModelInvalid, match=r"no model\.sig"):
        cache.obtain(wanted)


def test_a_folder_in_which_no_model_is_found_is_not_taken_for_signed(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelInvalid):
        Cache(tmp_path / "cache", max_bytes=10**6).obtain(Wanted(url=str(tmp_path), max_bytes=99, public_key=KEY))


def test_an_archive_is_unpacked_only_as_it_was_signed(server: Server, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "m"), "gztar", SIGNED)).read_bytes()
    signed = statement(
        predicate={"resources": [{**RESOURCE, "name": ".", "digest": hashlib.sha256(archive).hexdigest()}]}
    )
    wanted = Wanted(url=server.url_of("/m/m.tar.gz"), max_bytes=10**6, public_key=pem(MINE))
    for other in (statement(), signed):
        server.files = {"/m/m.tar.gz": archive, "/m/model.sig": bundle(MINE, other)}
        cache = Cache(tmp_path / "cache", max_bytes=10**6)
        if other is not signed:
            with pytest.raises(ModelInvalid, match="not what was signed"):
                cache.obtain(wanted)
            assert cache.known(wanted) is None
    assert (cache.obtain(wanted).path / "little.tflite").read_bytes() == MODEL


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_keys_of_three_curves_sign(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    check(bundle(key, statement()), key=pem(key))
    with pytest.raises(ModelInvalid, match="another key"):
        check(bundle(key, statement()), key=pem(ec.generate_private_key(curve)))


def damaged() -> bytes:
    made = json.loads(bundle(MINE, statement()))
    made["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement()).encode() + b" ").decode()
    return json.dumps(made).encode()


@pytest.mark.parametrize(
    "signature",
    [
        b"", b"{}", b"\xff", b"[]", damaged(),
        bundle(MINE, statement(), kind="text/plain"),
        bundle(MINE, statement(), times=0),
        bundle(MINE, statement(), times=2),
        bundle(MINE, statement(_type="other")),
        bundle(MINE, statement(predicateType="other")),
        bundle(MINE, statement(predicate={})),
        bundle(MINE, statement(predicate={"resources": []})),
        bundle(MINE, statement(predicate={"resources": [{**RESOURCE, "algorithm": "blake2b"}]})),
        bundle(MINE, ["no statement"]),
    ],
)  # fmt: skip
def test_what_is_no_signature_of_it_is_refused(signature: bytes) -> None:
    with pytest.raises(ModelInvalid) as refused:
        check(signature, key=pem(MINE))
    assert refused.value.reason == "SignatureInvalid"


@pytest.mark.parametrize(
    "key",
    ["", "a key", pem(ed25519.Ed25519PrivateKey.generate()), pem(ec.generate_private_key(ec.SECP256K1()))],
)  # fmt: skip
def test_a_key_that_is_none_is_the_users_to_mend(key: str) -> None:
    with pytest.raises(UserError, match="PEM"):
        check(bundle(MINE, statement()), key=key)


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path\nfrom nereid_shared.errors import UserError\n"
        "from nereid_shared.storage import Cache, Wanted\n"
        "try: Cache(Path('/nowhere'), max_bytes=0).obtain(Wanted(url=sys.argv[1], max_bytes=99, public_key='x'))\n"
        "except UserError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(SIGNED / "little.tflite")]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    assert "nereid-ai[signature]" in said
