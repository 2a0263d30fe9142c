# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator

import pytest
from tests.shared.storage.file_server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running
