# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from nereid_edge.folder import StateFolder
from nereid_shared.errors import UserError


def test_the_install_id_lives_as_long_as_the_folder(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "lc", node="edge-0") as first:
        install = first.install
    with StateFolder(tmp_path / "lc", node="edge-0") as again:
        assert again.install == install
    with StateFolder(tmp_path / "other", node="edge-0") as other:
        assert other.install != install


def test_a_second_controller_on_the_folder_is_refused(tmp_path: Path) -> None:
    with StateFolder(tmp_path, node="edge-0"), pytest.raises(UserError, match="another LocalController"):
        StateFolder(tmp_path, node="edge-0").__enter__()


def test_the_folder_is_refused_to_another_node(tmp_path: Path) -> None:
    with StateFolder(tmp_path, node="edge-0"):
        pass
    with pytest.raises(UserError, match="belongs to node 'edge-0', not 'edge-1'"):
        StateFolder(tmp_path, node="edge-1").__enter__()
    with StateFolder(tmp_path, node="edge-0"):
        pass


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        StateFolder(tmp_path / "file", node="edge-0").__enter__()


def test_an_acceptance_is_consumed_by_the_cluster_that_it_names(tmp_path: Path) -> None:
    with StateFolder(tmp_path, node="edge-0") as folder:
        assert folder.accepted_cluster() is None
        (tmp_path / "accept-cluster").write_text("cluster-b\n")
        folder.consume_acceptance("cluster-c")
        assert folder.accepted_cluster() == "cluster-b"
        folder.consume_acceptance("cluster-b")
        assert folder.accepted_cluster() is None
