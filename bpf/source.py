"""One text for the compiler out of a source and the headers of ours that it includes.

BCC rewrites map methods only in the main text; in an included file they compile without a word
into broken code. So headers are pasted where they are included, and #line keeps errors readable.
"""

import re
from pathlib import Path

from weft.bpf.layout import LAYOUTS

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*$', re.M)
_STRUCT_NAME = re.compile(r"(?<!^)(?=[A-Z])")


class SourceError(Exception):
    """A source includes what is not there."""


def pasted(source: Path, include: Path) -> str:
    """`source` with each header of the folder `include` pasted in at its first mention, and the
    proof that the compiler lays structs out as layout.py does."""
    text = _paste(source, include, set())
    return f"{text}\n{static_asserts()}" if '#line 1 "layout.h"' in text else text


def static_asserts() -> str:
    """One _Static_assert for each struct's size and each field's offset in layout.py."""
    lines = ['#line 1 "layout.py"']
    for name, words in LAYOUTS.items():
        struct = f"struct {_STRUCT_NAME.sub('_', name).lower()}"
        lines.append(f'_Static_assert(sizeof({struct}) == {words[0]}, "{struct}");')
        for word in words[1:]:
            field, offset = word.partition(":")[0], word.rpartition("@")[2]
            proof = f"__builtin_offsetof({struct}, {field}) == {offset}"
            lines.append(f'_Static_assert({proof}, "{struct}.{field}");')
    return "\n".join(lines) + "\n"


def _paste(path: Path, include: Path, seen: set[str]) -> str:
    text = path.read_text()
    parts, end = [f'#line 1 "{path.name}"\n'], 0
    for found in _INCLUDE.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        next_line = text.count("\n", 0, end) + 2
        parts.append(_header(found[1], path, include, seen))
        parts.append(f'\n#line {next_line} "{path.name}"')
    return "".join(parts) + text[end:]


def _header(name: str, by: Path, include: Path, seen: set[str]) -> str:
    if name in seen:
        return ""
    seen.add(name)
    if not (header := include / name).is_file():
        raise SourceError(f'{by.name} includes "{name}", which {include} does not have')
    return _paste(header, include, seen)
