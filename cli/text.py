"""Text for terminals: safe to print, in columns, no wider than there is room.

Names and reasons come from other people's objects: a control character in one of them must not
reach the terminal as such.
"""

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

_GAP = "   "
_LEAST_WIDTH = 12
"""A last column is never cut below this."""


def neutral(text: str) -> str:
    """`text` in one line, with what a terminal would obey written out (\\x1b, \\u202e)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_neutral_character, text))


def _neutral_character(character: str) -> str:
    # Cc: controls; Cf: marks that reorder or hide text; Zl, Zp: line ends.
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs"):
        return character.encode("unicode_escape", "surrogatepass").decode()
    return character


def columns(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None
) -> list[str]:
    """Lines of a table; `width` in characters cuts the last column, None leaves it whole."""
    cells = [[neutral(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    return [_line(row, widths, width) for row in ([title.upper() for title in titles], *cells)]


def _line(cells: Sequence[str], widths: Sequence[int], width: int | None) -> str:
    padded = [cell.ljust(size) for cell, size in zip(cells[:-1], widths[:-1], strict=True)]
    last = cells[-1]
    if width is not None:
        room = max(_LEAST_WIDTH, width - sum(len(cell) + len(_GAP) for cell in padded))
        last = last if len(last) <= room else last[: room - 1] + "…"
    return _GAP.join((*padded, last)).rstrip()


def terminal_width() -> int | None:
    """Of the terminal that standard output is; None for a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def duration(seconds: float) -> str:
    """An age in its two largest units: 4s, 2m10s, 3h5m, 2d4h."""
    whole = int(seconds)
    for size, unit, small, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small}{small_unit}"
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"
