"""Evidence of what was live when the pointer is missing or damaged.

An absent pointer alone proves nothing: a new bucket has none, nor has a wrong one, nor one whose pointer was deleted.
So nothing is unloaded without one, servers are filled by what is known to have been live, and a publish as if nothing had
been live is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.errors import StoreError
from tidegate.ports import BundleStore, GatewayReport, Pointer
from tidegate.ports.store_rules import pointer_of
from tidegate.rules.bundle import short_revision

RECOVER = "see `tidegate recover`"
GONE = "the pointer to the live revision is gone or damaged; run `tidegate recover`"


@dataclass(frozen=True, slots=True)
class Remains:
    """Evidence of what was live.

    Attributes:
        pointer: the pointer that the history leads to, or that this process read last; its tag is empty. None: neither.
        served: the revisions that gateways say they serve, each once.
        damage: what is wrong with the pointer; None where there is none.
        unread: why the history could not be read; None where it was. Then the rest is not all that may show it.
    """

    pointer: Pointer | None = None
    served: tuple[str, ...] = ()
    damage: str | None = None
    unread: str | None = None

    @property
    def found(self) -> bool:
        return bool(self.pointer or self.served or self.damage)

    @property
    def possible(self) -> bool:
        return self.found or bool(self.unread)

    @property
    def problem(self) -> str | None:
        """The known facts and the command to run next; None if certainly nothing was ever live."""
        unread = f"the history could not be read ({self.unread})"
        if not self.found:
            return (
                f"whether something was live is unknown: there is no pointer, and {unread}; nothing is unloaded meanwhile; "
                f"try again once it can be read, then {RECOVER}"
                if self.unread
                else None
            )
        known = [] if self.pointer is None else [f"revision {short_revision(self.pointer.live.revision)} was live"]
        if self.served:
            known.append(f"gateways serve {', '.join(short_revision(each) for each in self.served)}")
        if self.unread:
            known.append(unread)
        # The damage ends in the same advice.
        what = (self.damage or "the pointer to the live revision is gone").removesuffix(f"; {RECOVER}")
        return f"{what}; {' and '.join(known) or 'nothing else is known'}; nothing is unloaded meanwhile; {RECOVER}"


async def look_for(
    bundles: BundleStore, last: Pointer | None, gateways: Iterable[GatewayReport], damage: str | None = None
) -> Remains:
    """Find what else shows what was live, where there is no pointer that can be read.

    `last` is the pointer that this process read last, and `damage` what is wrong with that in the store.
    """
    pointer, unread = None, None
    try:
        pointer = pointer_of(await bundles.flips())
    except StoreError as error:
        # Without the history the rest counts, and may not be all.
        unread = str(error)
    if last is not None and (pointer is None or last.live.sequence >= pointer.live.sequence):
        pointer = last
    return Remains(pointer, tuple(dict.fromkeys(each.revision for each in gateways)), damage, unread)
