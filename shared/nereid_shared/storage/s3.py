# SPDX-License-Identifier: Apache-2.0
"""S3 as one more way to an HTTP address: `obstore` signs, and the download itself is the same as any other.

Credentials, region and endpoint are those of the process: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_SESSION_TOKEN``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``, a web identity, or what the machine itself is given.
"""

from datetime import timedelta
from typing import Final

from nereid_shared.errors import Unavailable, UserError
from nereid_shared.storage.places import s3_object

# Looked at when a request begins; each try has its own.
_EXPIRES: Final = timedelta(hours=1)
# The machine's own credentials are asked for over its network, where there are no others.
_RETRY_FOR: Final = timedelta(seconds=10)


def signed(url: str) -> str:
    """Return the HTTP address under which this process may read ``s3://bucket/key`` for an hour.

    Raises:
        UserError: the URL names no object, or the extra is not installed.
        Unavailable: there are no credentials.
    """
    bucket, key = s3_object(url)
    try:
        import obstore  # noqa: PLC0415 - the extra [s3]
        from obstore.exceptions import BaseError  # noqa: PLC0415 - the extra [s3]
        from obstore.store import S3Store  # noqa: PLC0415 - the extra [s3]
    except ImportError as error:
        raise UserError("s3:// needs obstore", where=url, mend="pip install 'nereid-ai[s3]'") from error
    try:
        store = S3Store(bucket, retry_config={"max_retries": 1, "retry_timeout": _RETRY_FOR})
        return obstore.sign(store, "GET", key, _EXPIRES)
    except (TypeError, ValueError) as error:
        raise UserError(
            "not a key that can be fetched", where=url, mend="Rename the object: no // and no .."
        ) from error
    except BaseError as error:
        raise Unavailable(
            f"{url}: there are no credentials for S3. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where this "
            "process runs"
        ) from error
