# SPDX-License-Identifier: Apache-2.0
"""A model with all that belongs to it, on this node: the file, its card, and the card's golden inputs."""

import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from nereid_shared import card
from nereid_shared.card import Card
from nereid_shared.errors import ModelInvalid
from nereid_shared.messages import ModelRef
from nereid_shared.storage import fetch

MAX_MODEL_BYTES: Final = 2 * 1024**3
MAX_GOLDEN_BYTES: Final = 16 * 1024**2
_FOLDER_CHARACTERS: Final = 16


def fetch_model(ref: ModelRef, *, into: Path) -> Path:
    """Return the model file's path, with its card and golden inputs beside it. Blocking.

    A path on this node is used in place. What comes by HTTP gets a folder of its own below `into`, named for its URL;
    ``model.json`` and the golden inputs are expected beside the file there.

    Raises:
        ModelInvalid, Unavailable, TemporaryError, UserError: as `nereid_shared.storage.fetch`; ``CardMissing``.
    """
    if urlsplit(ref.url).scheme not in {"http", "https"}:
        return fetch(ref.url, into=into, sha256=ref.sha256 or None, max_bytes=MAX_MODEL_BYTES)
    folder = into / hashlib.sha256(ref.url.encode()).hexdigest()[:_FOLDER_CHARACTERS]
    file = fetch(ref.url, into=folder, sha256=ref.sha256 or None, max_bytes=MAX_MODEL_BYTES)
    try:
        fetch(urljoin(ref.url, card.FILE_NAME), into=folder, sha256=None, max_bytes=card.MAX_BYTES)
    except ModelInvalid as error:
        raise ModelInvalid(f"{error}. Put the model's card beside the model.", reason="CardMissing") from error
    for golden in Card.load(folder).golden:
        place = (folder / golden.input).parent
        fetch(urljoin(ref.url, quote(golden.input)), into=place, sha256=None, max_bytes=MAX_GOLDEN_BYTES)
    return file
