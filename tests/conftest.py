# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every folder of tests shares."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings
from tests.mosquitto import Mosquitto, executable

pytest_plugins = ("tests.cluster.fixtures",)

# A busy machine is no defect: nothing here is timed, so hypothesis' deadline of 200 ms an example goes.
settings.register_profile("nereid", deadline=None)
settings.load_profile("nereid")


class MosquittoFactory(Protocol):
    """Makes and starts brokers that end with the test."""

    def __call__(self, **options: Any) -> Mosquitto: ...


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[MosquittoFactory]:
    """A factory of running brokers; it takes what `Mosquitto` takes, without the folder."""
    if executable() is None:
        pytest.skip("mosquitto is missing: apt-get install mosquitto")
    brokers: list[Mosquitto] = []

    def make(**options: Any) -> Mosquitto:
        broker = Mosquitto(tmp_path / f"mosquitto-{len(brokers)}", **options)
        brokers.append(broker)
        return broker.start()

    yield make
    for broker in brokers:
        broker.kill()


@pytest.fixture
def broker(mosquitto: MosquittoFactory) -> Mosquitto:
    """One running broker without authentication."""
    return mosquitto()
