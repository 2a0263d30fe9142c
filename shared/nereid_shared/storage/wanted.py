# SPDX-License-Identifier: Apache-2.0
"""What a cache is asked for, and what it answers."""

from pathlib import Path

from msgspec import Struct


class Wanted(Struct, frozen=True, kw_only=True):
    """An artefact to obtain.

    Attributes:
        url: a path, ``file://``, ``http://``, ``https://`` or ``s3://bucket/key``.
        sha256: its digest in hex, "" where nobody gave one.
        max_bytes: larger ones are refused, and archives that unpack to more.
        companions: with it come ``model.json`` beside the URL, where there is one, and the golden inputs it names.
        public_key: PEM of the key that must have signed it (see `nereid_shared.storage.signatures`), "" where none need
            have; the signature is ``model.sig`` beside the URL.
    """

    url: str
    sha256: str = ""
    max_bytes: int
    companions: bool = False
    public_key: str = ""


class Obtained(Struct, frozen=True, kw_only=True):
    """An artefact on this node.

    Attributes:
        path: its file, with its companions beside it; of an archive the innermost folder that all
            its files are in.
        digest: the sha256 of the artefact itself; "" for a folder on this node in which no single model is found.
        bytes: its size.
        key: names it in the cache: the digest, "-" and what tells sets of one digest apart; "" for what is used in
            place.
    """

    path: Path
    digest: str
    bytes: int
    key: str
