# SPDX-License-Identifier: Apache-2.0
"""The controllers as the process that ``nereid up`` starts."""

import contextlib
import signal
import subprocess
import sys
import threading
from pathlib import Path

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.local import DATABASE, LocalCluster


def controllers(state: Path) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-m", "nereid_cloud.laptop.controllers", "--state", str(state)]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


def test_the_process_carries_out_a_deployment_and_ends_at_sigterm(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / DATABASE)
    labels = {"app": "big"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "cloud"}}
    cluster.create({**node, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    spec = {"containers": [{"name": "main", "image": "i"}], "nodeSelector": {"kubernetes.io/hostname": "cloud"}}
    template = {"metadata": {"labels": labels}, "spec": spec}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "big"}}
    cluster.create({**deployment, "spec": {"selector": {"matchLabels": labels}, "template": template}})
    stop = threading.Event()
    with contextlib.closing(cluster), controllers(tmp_path) as process:
        try:
            fields = "spec.nodeName=cloud"
            first = next(cluster.watch(kinds.POD, resource_version="0", stop=stop, fields=fields, timeout_s=20))
            assert first.type == "ADDED"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_file_that_is_no_cluster_is_named(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("not a database, but long enough to be taken for one" * 100)
    with controllers(tmp_path) as process:
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(30) == 2
    assert told.startswith(f"controllers: {tmp_path / DATABASE}: this is not a cluster's database")
    assert "Traceback" not in told
