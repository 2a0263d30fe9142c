# SPDX-License-Identifier: Apache-2.0
"""A real Mosquitto per test: on a free port of 127.0.0.1, its files in the test's own folder."""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


def executable() -> str | None:
    """Return the path of Mosquitto, which Debian installs outside a user's PATH."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago, and that the system gives to no outgoing connection.

    A broker that is down for a while finds such a port free again; among the others, a client that tries to reach it
    may even have connected to itself.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Mosquitto:
    """One broker process; `start` again after `stop` or `kill` takes the same port and the same store.

    Args:
        folder: where configuration, log and store go.
        port: fixed port; a free one where None.
        persistence: keep a store over `stop` (a `kill` loses it: Mosquitto saves at a clean end).
        config: further lines, such as an ``acl_file``.
        config_file: a whole configuration to run instead of the generated one; it must listen on `port`.
        more_ports: on which that configuration listens besides.
        max_packet_size: announced to clients in CONNACK.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        persistence: bool = False,
        config: Sequence[str] = (),
        config_file: Path | None = None,
        more_ports: Sequence[int] = (),
        max_packet_size: int = 20_000_000,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.folder = folder
        self.log_file = folder / "mosquitto.log"
        self._config_file = config_file or folder / "mosquitto.conf"
        self._ports = (self.port, *more_ports)
        self._process: subprocess.Popen[bytes] | None = None
        if config_file is None:
            lines = [
                # Started by root it would become `mosquitto`, who cannot read a test's folder; others ignore the line.
                f"user {getpass.getuser()}",
                f"listener {self.port} {self.host}",
                "allow_anonymous true",
                "set_tcp_nodelay true",
                f"max_packet_size {max_packet_size}",
                f"persistence {str(persistence).lower()}",
                f"persistence_location {folder}/",
                *config,
            ]
            self._config_file.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        """The broker's address without TLS."""
        return f"mqtt://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None, "the broker does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Return what the broker has logged since its first start."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self) -> "Mosquitto":
        """Start the process and return once it accepts connections."""
        assert not self.running, "the broker runs already"
        program = executable()
        assert program is not None, "mosquitto is not installed"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-v", "-c", str(self._config_file)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"mosquitto did not start on port {self.port}:\n{self.log()}")
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """End the process in order: it saves its store and says goodbye to its clients."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process by SIGKILL."""
        self._end(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal, such as SIGSTOP, SIGCONT or SIGHUP."""
        os.kill(self.pid, number)

    def _accepts(self) -> bool:
        # On all: a broker that finds one of its ports taken has listened on those before it, and ends.
        try:
            for port in self._ports:
                socket.create_connection((self.host, port), timeout=1).close()
        except OSError:
            return False
        return self.running

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
