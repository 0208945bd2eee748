"""Which drafts somebody needs: they are neither replaced nor withdrawn meanwhile."""

from __future__ import annotations

import time

from tidegate.control.claimant import has_ended
from tidegate.control.config import ControlConfig
from tidegate.control.plans import units_of
from tidegate.errors import BundleError, ConflictError
from tidegate.ports import BundleStore, Unit


async def claimed_units(bundles: BundleStore, now: float | None = None) -> frozenset[Unit]:
    """What the revisions need that publishers claim now.

    It spares others a publish that fails. What goes live is safe without it: see `ModelStore.seal`.

    Args:
        bundles: has the claims.
        now: the time in Unix seconds; None: this machine's.

    Raises:
        ConflictError: what a publisher needs cannot be read.
        StoreError: the store did not answer.
    """
    now = time.time() if now is None else now
    needed: frozenset[Unit] = frozenset()
    for claim in await bundles.claims():
        if not claim.revision or has_ended(claim.id) or claim.expires_at + ControlConfig().skew_s <= now:
            continue
        try:
            needed |= units_of((await bundles.assignment(claim.revision)).values())
        except BundleError as error:
            raise ConflictError(
                f"{claim.by} publishes revision {claim.revision[:12]}, and what that needs cannot be read: {error}; wait "
                "for that publish to end"
            ) from error
    return needed
