# SPDX-License-Identifier: Apache-2.0
"""Warns that nobody keeps statuses up to date: a GlobalManager that has stopped leaves its last words standing."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import typer

from nereid_cloud.cli.ages import now, since
from nereid_cloud.cli.options import options_of
from nereid_cloud.cli.problems import note
from nereid_cloud.cluster.kinds import CATEGORIES, LEASE
from nereid_cloud.cluster.port import Cluster, Kind, Object
from nereid_cloud.gm.names import MANAGER
from nereid_shared.errors import NereidError
from nereid_shared.kinds import CATEGORY

# Beyond the Lease's own time: another GlobalManager may just be taking over, and clocks differ a little.
GRACE: Final = timedelta(seconds=10)


def warn_of_silence(ctx: typer.Context, cluster: Cluster, kinds: Iterable[Kind]) -> None:
    """Say on stderr since when no GlobalManager has renewed its Lease, where it has its word in one of these kinds.

    Where none ever ran there is nothing old to warn of, and of a system that is down the user was told already.
    """
    if options_of(ctx).is_down or not set(kinds).intersection(CATEGORIES[CATEGORY]):
        return
    try:
        leases = cluster.list(LEASE, fields=f"metadata.name={MANAGER}").items
    except NereidError:
        return  # not everybody may read Leases; what the user asked for is printed all the same
    # One that was given up, or is another Nereid's, does not speak against one that is kept.
    renewals = [_renewal(lease) for lease in leases if (lease.get("spec") or {}).get("renewTime")]
    renewed, lasts = max(renewals, default=(now(), timedelta()))
    if now() - renewed > lasts + GRACE:
        moment = f"{renewed:%Y-%m-%dT%H:%M:%SZ}"
        old = "what follows may be old"
        note(f"Warning: no GlobalManager has spoken since {moment} ({since(moment, now())} ago): {old}")


def _renewal(lease: Object) -> tuple[datetime, timedelta]:
    """Return when a Lease was renewed, and how long it lasts."""
    spec = lease["spec"]
    return datetime.fromisoformat(spec["renewTime"]), timedelta(seconds=spec.get("leaseDurationSeconds") or 0)
