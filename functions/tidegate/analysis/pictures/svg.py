"""The few shapes that the pictures are made of, and their style in light and dark.

A picture is standalone SVG 1.1 (https://www.w3.org/TR/SVG11/) with CSS classes. `kind` is one or more of: `ink` (text and
strokes), `soft` (secondary text), `grid` (thin lines), `card` (a box), `c0` … `c5` (filled with a colour of the palette), `bold`,
`small`.
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

CHARACTER_WIDTH = 7.2
"""How wide a character of ordinary text is at the most on average, in pixels."""

BOLD = 0.86
"""How much narrower a text must be to fit in bold too."""

_COLOURS = ("#3b82c4", "#d9822b", "#3a9d6e", "#b4548f", "#8a6fd1", "#c2504b")
_STYLE = """
svg{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px}
.ground{fill:#ffffff}.ink{fill:#1f2933}line.ink{stroke:#1f2933;stroke-width:1.5}
.soft{fill:#5b6773}.grid{stroke:#d5dbe1;stroke-width:1}.card{fill:#f4f6f8;stroke:#a9b4bf;stroke-width:1}
.bold{font-weight:600}.small{font-size:11px}
@media (prefers-color-scheme:dark){.ground{fill:#14181d}.ink{fill:#e6eaee}line.ink{stroke:#e6eaee}
.soft{fill:#a3afba}.grid{stroke:#343c45}.card{fill:#1e252c;stroke:#5b6773}}
"""


class Picture:
    """An SVG picture under construction. Lengths are in pixels, the origin is the top left corner.

    `title` is the picture's accessible name, which a screen reader announces; `description` is one or two sentences.
    """

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self._size = (width, height)
        self._title, self._description = title, description
        self._parts: list[str] = []

    def rectangle(
        self, x: float, y: float, width: float, height: float, kind: str, *, tip: str = "", radius: float = 0
    ) -> None:
        """Draw a rectangle; `tip` is shown when pointed at."""
        corner = f' rx="{_n(radius)}"' if radius else ""
        self._shape("rect", f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"{corner}', kind, tip)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._shape("line", f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"', kind, "")

    def text(self, x: float, y: float, content: str, kind: str = "ink", *, anchor: str = "start") -> None:
        """Write text on the baseline `y`; `anchor` is `start`, `middle` or `end`."""
        place = f'x="{_n(x)}" y="{_n(y)}" text-anchor={quoteattr(anchor)} class={quoteattr(kind)}'
        self._parts.append(f"<text {place}>{escape(printable(content))}</text>")

    def render(self) -> str:
        width, height = map(_n, self._size)
        colours = "".join(f".c{index}{{fill:{colour}}}" for index, colour in enumerate(_COLOURS))
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="title desc">\n'
            f'<title id="title">{escape(printable(self._title))}</title>\n'
            f'<desc id="desc">{escape(printable(self._description))}</desc>\n'
            f"<style>{_STYLE}{colours}\n</style>\n"
            f'<rect class="ground" width="{width}" height="{height}"/>\n' + "\n".join(self._parts) + "\n</svg>\n"
        )

    def _shape(self, element: str, attributes: str, kind: str, tip: str) -> None:
        inside = f"<title>{escape(printable(tip))}</title>" if tip else ""
        self._parts.append(f"<{element} {attributes} class={quoteattr(kind)}>{inside}</{element}>")


def shortened(text: str, width: float) -> str:
    """Return the text, cut in its middle where it is wider than `width` pixels."""
    most = max(3, int(width / CHARACTER_WIDTH))
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def printable(text: str) -> str:
    """Return the text without the control characters that XML 1.0 forbids."""
    return "".join(character if character >= " " and character.isprintable() else " " for character in text)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
