# SPDX-License-Identifier: Apache-2.0
"""Opens the cluster that a user names; only the adapter that is needed is imported."""

import os
from pathlib import Path
from typing import Final

from nereid_cloud.cluster.port import Cluster
from nereid_shared.errors import UserError

DATABASE: Final = "cluster.db"  # in the state folder


def open_cluster(
    *, state: Path | None, kubeconfig: Path | None, context: str = "", in_cluster: bool = False
) -> Cluster:
    """Return the cluster of a kubeconfig, that which this Pod runs in, or the local one in a state folder.

    Raises:
        UserError: there is no such file, or no cluster in the folder.
    """
    if kubeconfig is not None:
        return _of_kubeconfig(kubeconfig, context)
    if in_cluster:
        from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415 - see the module's docstring

        return KubernetesCluster()
    if state is None:
        raise UserError("no cluster is named", mend="Give --state or --kubeconfig")
    if not (state / DATABASE).exists():
        raise UserError(
            "there is no cluster in this state folder",
            where=str(state),
            mend="Start one with `nereid up`, or name another with --state, --kubeconfig or $KUBECONFIG",
        )
    from nereid_cloud.cluster.local import LocalCluster  # noqa: PLC0415 - see the module's docstring

    return LocalCluster(state / DATABASE)


def _of_kubeconfig(kubeconfig: Path, context: str) -> Cluster:
    # As in $KUBECONFIG, it may be several files with colons between them, not all of which have to be there.
    if not any(Path(part).is_file() for part in str(kubeconfig).split(os.pathsep)):
        raise UserError("there is no such kubeconfig", where=str(kubeconfig), mend="Give the path of one")
    from nereid_cloud.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415 - see the module's docstring

    return KubernetesCluster(kubeconfig=kubeconfig, context=context or None)
