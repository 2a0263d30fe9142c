# SPDX-License-Identifier: Apache-2.0
"""Signatures of models by a key, as OpenSSF Model Signing 1.0 makes them, verified with no network.

``model_signing sign key FOLDER --private_key KEY`` writes ``model.sig``: a Sigstore bundle with a DSSE envelope
(https://github.com/secure-systems-lab/dsse) around an in-toto statement that lists the files' digests. That package
brings 35 others, so the envelope is opened here; the cryptography is that of `cryptography`.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from nereid_shared.errors import ModelInvalid, UserError

FILE_NAME: Final = "model.sig"
MAX_BYTES: Final = 4 * 1024**2

_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_ITSELF: Final = "."


class _Signed(Struct):
    sig: str


class _Envelope(Struct):
    payload: str
    signatures: list[_Signed]


class _Bundle(Struct, rename="camel"):
    dsse_envelope: _Envelope


class _Resource(Struct):
    name: str
    algorithm: str
    digest: str


class _Predicate(Struct):
    resources: list[_Resource]


class _Statement(Struct, rename="camel"):
    type: str = msgspec.field(name="_type")
    predicate_type: str
    predicate: _Predicate


def verify(bundle: bytes, *, public_key: str, artefact: str, files: Mapping[str, str], where: str) -> None:
    """Return if the key has signed the artefact, and each file of it that the signature should list.

    A signature of one file says nothing of those beside it; one of a folder must list all of `files`.

    Args:
        bundle: the content of ``model.sig``.
        public_key: PEM, of an elliptic curve P-256, P-384 or P-521.
        artefact: the sha256 of the artefact itself.
        files: the sha256 of each file that came, by its path; the signature itself is left out.
        where: what the signature is of, for messages.

    Raises:
        ModelInvalid: ``SignatureInvalid``.
        UserError: the key is none, or the extra is not installed.
    """
    try:
        envelope = msgspec.json.decode(bundle, type=_Bundle).dsse_envelope
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [base64.b64decode(one.sig, validate=True) for one in envelope.signatures]
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise _invalid(where, f"its {FILE_NAME} is none: {error}") from error
    if len(signatures) != 1:
        raise _invalid(where, f"its {FILE_NAME} is none of OpenSSF Model Signing")
    _require_signed(payload, signatures[0], public_key, where)
    listed = _listed(payload, where)
    if listed.get(_ITSELF) == artefact:
        return
    for name, digest in files.items():
        if name != FILE_NAME and listed.get(name) != digest:
            raise _invalid(where, f"{name} is not what was signed")


def _require_signed(payload: bytes, signature: bytes, public_key: str, where: str) -> None:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - the extra [signature]
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - the extra [signature]
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - the extra [signature]
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 - the same
    except ImportError as error:
        raise UserError(
            "signatures need cryptography", where=where, mend="pip install 'nereid-ai[signature]'"
        ) from error
    digests: dict[str, hashes.HashAlgorithm] = {
        "secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512(),
    }  # fmt: skip
    try:
        key: Any = load_pem_public_key(public_key.encode())
    except ValueError as error:
        raise _no_key(where) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in digests:
        raise _no_key(where)
    try:
        key.verify(signature, _authenticated(payload), ec.ECDSA(digests[key.curve.name]))
    except InvalidSignature as error:
        raise _invalid(where, "another key has signed it, or nobody this") from error


def _authenticated(payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding, which holds the payload's only type that counts."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _listed(payload: bytes, where: str) -> dict[str, str]:
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
    except msgspec.DecodeError as error:
        raise _invalid(where, f"what is signed is no statement: {error}") from error
    resources = statement.predicate.resources
    if (statement.type, statement.predicate_type) != (_STATEMENT, _PREDICATE):
        raise _invalid(where, f"what is signed is no {_PREDICATE}")
    if any(one.algorithm != "sha256" for one in resources):
        raise _invalid(where, "it is signed by other digests than sha256 of whole files")
    return {one.name: one.digest for one in resources}


def _no_key(where: str) -> UserError:
    return UserError("not a public key", where=where, mend="Write the PEM of one on P-256, P-384 or P-521")


def _invalid(where: str, problem: str) -> ModelInvalid:
    return ModelInvalid(f"{where}: {problem}", reason="SignatureInvalid")
