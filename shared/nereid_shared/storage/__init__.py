# SPDX-License-Identifier: Apache-2.0
"""Files from where their URL says: in place on this node, or downloaded whole, right, and once.

Everything here blocks: call it from a thread.
"""

from nereid_shared.storage.cache import Cache
from nereid_shared.storage.checks import file_sha256
from nereid_shared.storage.download import Progress
from nereid_shared.storage.fetching import fetch
from nereid_shared.storage.patience import Stop
from nereid_shared.storage.wanted import Obtained, Wanted

__all__ = ["Cache", "Obtained", "Progress", "Stop", "Wanted", "fetch", "file_sha256"]
