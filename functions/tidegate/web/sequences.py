"""A request's `sequence_id`, of which nothing reaches Triton that ends it.

Triton 2.51 writes a text id with 4 bytes for its length into the 4 or 8 bytes of a numeric CORRID control, and so beyond
them. What the allocator adds takes 20 bytes of text, and one of 21 ends the server. Which control a model, or a step of it, has
is not known here, so the limit is for all.
"""

from __future__ import annotations

from tidegate.web.errors import malformed

LONGEST_SEQUENCE_ID_BYTES = 20


def check_sequence_id(text: str) -> None:
    """Refuse a text id that could end a server.

    Raises:
        WebError: it is too long.
    """
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST_SEQUENCE_ID_BYTES:
        raise malformed(
            f"the sequence_id is a text of more than {LONGEST_SEQUENCE_ID_BYTES} bytes: send a number, or a shorter text"
        )
