# SPDX-License-Identifier: Apache-2.0
"""A real kubectl on the tests' API server."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

TIMEOUT_S = 60.0


class Kubectl:
    """Runs kubectl in one namespace.

    Args:
        command: arguments that begin each command.
        namespace: where namespaced objects are looked for.
    """

    def __init__(self, command: Sequence[str], *, namespace: str) -> None:
        self._command, self.namespace = (*command, f"--namespace={namespace}"), namespace

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run a command, which may fail."""
        argv = [*self._command, *arguments]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)

    def __call__(self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S) -> str:
        """Return what a command says; it must succeed."""
        done = self.run(*arguments, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Return the object that a ``get`` shows."""
        return json.loads(self("get", *arguments, "--output=json"))

    def table(self, *arguments: str) -> list[list[str]]:
        """Return the words of a ``get``'s rows, the headings first."""
        return [line.split() for line in self("get", *arguments).splitlines()]
