# SPDX-License-Identifier: Apache-2.0
"""What a watch makes of an answer that is cut or is no watch's."""

import io

import pytest
import urllib3

from nereid_cloud.cluster.kubernetes_watch import events
from nereid_shared.errors import Unavailable


@pytest.mark.parametrize(
    "body", [b'{"type": "ADDED", "obj', b"<html>a proxy's words</html>", b"[]", b'{"type": "ADDED"}']
)
def test_a_line_that_is_no_event_breaks_the_watch(body: bytes) -> None:
    response = urllib3.HTTPResponse(body=io.BytesIO(body), preload_content=False)
    with pytest.raises(Unavailable, match="the watch broke"):
        list(events(response, over=lambda: False, quiet_s=1.0))
