# SPDX-License-Identifier: Apache-2.0
"""Builds the programs of ``kube/`` once, into the user's cache."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("kube")
MISSING = "no API server: install Go 1.24 or later (https://go.dev/dl), or set NEREID_TEST_KUBECONFIG to a kubeconfig"


def binary() -> Path | None:
    """Return the program that is each part of a cluster, building it where it is not yet; None where Go is missing.

    Parallel test workers wait for the one that builds.

    Raises:
        CalledProcessError: the build failed; the compiler's words are on stderr.
    """
    return _built("kube", ".")


def pause() -> Path | None:
    """Return the program of Pods' sandboxes, as `binary` does."""
    return _built("pause", "./pause")


def _built(name: str, package: str) -> Path | None:
    program = _cache() / f"{name}-{_key()}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        return None
    program.parent.mkdir(parents=True, exist_ok=True)
    with program.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(go, package, program)
    return program


def _build(go: str, package: str, program: Path) -> None:
    sys.stderr.write("building the tests' cluster, once (up to 5 minutes, 3 GB of Go's cache) …\n")
    sys.stderr.flush()
    unfinished = program.with_suffix(".part")
    subprocess.run(
        [go, "build", "-trimpath", "-ldflags", f"-s -w {_version_flags()}", "-o", str(unfinished), package],
        cwd=SOURCE, env={**os.environ, "CGO_ENABLED": "0"}, check=True, stdout=sys.stderr,
    )  # fmt: skip
    unfinished.replace(program)


def _version_flags() -> str:
    """Return the linker's flags with which the API server knows its own version, as in Kubernetes' releases."""
    found = re.search(r"k8s\.io/kubernetes v(\d+)\.(\d+)\.\d+", (SOURCE / "go.mod").read_text())
    assert found is not None
    values = {
        "gitVersion": found[0].split()[1],
        "gitMajor": found[1],
        "gitMinor": found[2],
        "gitTreeState": "clean",
        "gitCommit": "none",
    }
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nereid"


def _key() -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in SOURCE.rglob("*") if path.suffix in {".go", ".mod", ".sum"}):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
