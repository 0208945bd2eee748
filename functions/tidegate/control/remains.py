"""What is left of a pointer that is gone or damaged: what was live, as far as anybody still knows.

An absent pointer alone says nothing: it is what a new bucket looks like, a wrong one, and one whose pointer was deleted.
So nothing is unloaded without one, servers are filled by what is known to have been live, and whoever would publish as if
nothing had been live is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.errors import StoreError
from tidegate.ports import BundleStore, GatewayReport, Pointer
from tidegate.ports.store_rules import pointer_of

RECOVER = "see `tidegate recover`"
GONE = "the pointer to the live revision is gone or damaged; run `tidegate recover`"


@dataclass(frozen=True, slots=True)
class Remains:
    """What shows what was live.

    Attributes:
        pointer: the pointer that the history leads to, or that this process read last; its tag is empty. None: neither.
        served: the revisions that gateways say they serve, each once.
        damage: what is wrong with the pointer; empty where there is none.
        unread: why the history could not be read; empty where it was. Then the rest is not all that may show it.
    """

    pointer: Pointer | None = None
    served: tuple[str, ...] = ()
    damage: str = ""
    unread: str = ""

    @property
    def found(self) -> bool:
        """Whether something was live."""
        return bool(self.pointer or self.served or self.damage)

    @property
    def possible(self) -> bool:
        """Whether something was live, or may have been."""
        return self.found or bool(self.unread)

    def __str__(self) -> str:
        """What is known, in words, and what to do; empty where nothing shows that anything was ever live, and that is
        certain."""
        unread = f"the history could not be read ({self.unread})"
        if not self.found:
            return (
                f"whether something was live is unknown: there is no pointer, and {unread}; nothing is unloaded meanwhile; "
                f"try again once it can be read, then {RECOVER}"
                if self.unread
                else ""
            )
        known = [] if self.pointer is None else [f"revision {self.pointer.live.revision[:12]} was live"]
        if self.served:
            known.append(f"gateways serve {', '.join(each[:12] for each in self.served)}")
        if self.unread:
            known.append(unread)
        # What cannot be decoded says itself what to do; here that is said last.
        what = self.damage.removesuffix(f"; {RECOVER}") or "the pointer to the live revision is gone"
        return f"{what}; {' and '.join(known) or 'nothing else is known'}; nothing is unloaded meanwhile; {RECOVER}"


async def look_for(
    bundles: BundleStore, last: Pointer | None, gateways: Iterable[GatewayReport], damage: str = ""
) -> Remains:
    """What is left where there is no pointer that can be read.

    Args:
        bundles: the store, whose history is read.
        last: the pointer that this process read last.
        gateways: what gateways report.
        damage: what is wrong with the pointer; empty where there is none.
    """
    pointer, unread = None, ""
    try:
        pointer = pointer_of(await bundles.flips())
    except StoreError as error:
        # Whoever may not read the history, or cannot now, goes by the rest, and knows that it may not be all.
        unread = str(error)
    if last is not None and (pointer is None or last.live.sequence >= pointer.live.sequence):
        pointer = last
    return Remains(pointer, tuple(dict.fromkeys(each.revision for each in gateways)), damage, unread)
