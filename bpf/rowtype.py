"""What a table's rows are made of, as BTF: for the kernel, and for the version that comes after.

Owns the way from layout.py's structs to BTF and from BTF to named fields with their offsets. The
kernel gets it with each map, so that a dump is readable; opening a map's BTF again needs
CAP_SYS_ADMIN, which the daemon does without, so that each map's BTF is pinned beside it too
(migrate.py). Knows nothing of how rows are carried over (migrate.py).
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from weft.bpf import btf
from weft.bpf.btf import CType, Struct
from weft.bpf.wire import TableSpec

_MAGIC, _VERSION, _HEADER_BYTES = 0xEB9F, 1, 24
_INT, _ARRAY, _STRUCT = 1, 3, 4
_SIGNED = 1 << 24
_FIELD = re.compile(r"(\w+):([\w-]+?)(?:\[(\d+)\])?@(\d+)")
# Stands last: its two members say which types are the key's and the value's.
_ROW = "Row"

Layouts = Mapping[str, tuple[str, ...]]
"""struct -> its size, then name:type[count]@offset of each field (layout.LAYOUTS)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """BTF of one table, with the numbers of its key's and value's types."""

    data: bytes
    key_id: int
    value_id: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field that is no struct, at `offset` bytes of the key or value. path: its name behind those
    of the structs around it (initiator.word); size: of one element."""

    path: str
    type: str
    offset: int
    size: int
    count: int | None


@dataclass(frozen=True, slots=True)
class RowType:
    """The fields of a table's key and value; a scalar's path is empty."""

    key: tuple[Leaf, ...]
    value: tuple[Leaf, ...]
    key_size: int
    value_size: int


class _Writer:
    """BTF in the making. Types are numbered from 1 in the order in which they are added."""

    def __init__(self, layouts: Layouts) -> None:
        self._layouts, self._ids = layouts, dict[str, int]()
        self._types, self._strings = list[bytes](), bytearray(b"\0")

    def type(self, name: str) -> int:
        """The number of a scalar or of a struct of the layouts."""
        if name not in self._ids:
            is_struct = name in self._layouts
            self._ids[name] = self._layout(name) if is_struct else self._scalar(name)
        return self._ids[name]

    def struct(self, name: str, size: int, members: Sequence[tuple[str, int, int]]) -> int:
        """members: name, type's number, offset in bytes."""
        words = [(self._text(field), number, at * 8) for field, number, at in members]
        body = b"".join(struct.pack("=3I", *word) for word in words)
        return self._add(name, _STRUCT << 24 | len(members), size, body)

    def section(self) -> bytes:
        types, strings = b"".join(self._types), bytes(self._strings)
        header = (_MAGIC, _VERSION, 0, _HEADER_BYTES, 0, len(types), len(types), len(strings))
        return struct.pack("=HBB5I", *header) + types + strings

    def _layout(self, name: str) -> int:
        size, *fields = self._layouts[name]
        members = [(word, self._field(kind, n), at) for word, kind, n, at in map(_field, fields)]
        return self.struct(name, int(size), members)

    def _field(self, kind: str, count: int | None) -> int:
        element = self.type(kind)
        if count is None:
            return element
        return self._add("", _ARRAY << 24, 0, struct.pack("=3I", element, self.type("u32"), count))

    def _scalar(self, name: str) -> int:
        size = scalar_size(name)
        encoding = 8 * size | (_SIGNED if name.startswith("__s") else 0)
        return self._add(name, _INT << 24, size, struct.pack("=I", encoding))

    def _add(self, name: str, info: int, size: int, body: bytes) -> int:
        self._types.append(struct.pack("=3I", self._text(name), info, size) + body)
        return len(self._types)

    def _text(self, text: str) -> int:
        if not text:
            return 0
        self._strings += text.encode() + b"\0"
        return len(self._strings) - len(text) - 1


def encode(spec: TableSpec, layouts: Layouts) -> Encoded:
    """The BTF of a table's rows: no types but theirs. A ring buffer's have no key (0)."""
    writer = _Writer(layouts)
    parts = {part: name for part, name in (("key", spec.key), ("value", spec.value)) if name}
    ids = {part: writer.type(name) for part, name in parts.items()}
    members, at = list[tuple[str, int, int]](), 0
    for part, name in parts.items():
        members.append((part, ids[part], at))
        at += int(layouts[name][0]) if name in layouts else scalar_size(name)
    writer.struct(_ROW, at, members)
    return Encoded(writer.section(), ids.get("key", 0), ids["value"])


def decode(section: bytes) -> RowType:
    """The reverse of `encode`, whichever version wrote it, for rows with a key. Raises ValueError
    for any other BTF."""
    try:
        structs = {one.name: one for one in btf.read(section)[0]}
        key, value = structs[_ROW].fields
    except (struct.error, LookupError, ValueError, btf.LayoutError) as error:
        raise ValueError(f"no BTF of a table's rows: {error!r}") from error
    leaves = [tuple(_leaves(structs, part.type, "", 0)) for part in (key, value)]
    return RowType(leaves[0], leaves[1], key.size, value.size)


def scalar_size(name: str) -> int:
    """Bytes of __u8, __be16, u32, ..."""
    match = re.fullmatch(r"(?:__)?(?:u|s|be|le)(8|16|32|64)", name)
    if match is None:
        raise ValueError(f"{name} is no number of fixed width")
    return int(match[1]) // 8


def _field(text: str) -> tuple[str, str, int | None, int]:
    """Name, type as the layouts call it, count, offset."""
    match = _FIELD.fullmatch(text)
    if match is None:
        raise ValueError(f"{text} is no field: name:type[count]@offset")
    kind = match[2]
    if kind.startswith("struct-"):
        words = kind.removeprefix("struct-").split("_")
        kind = "".join(word.capitalize() for word in words)
    return match[1], kind, int(match[3]) if match[3] else None, int(match[4])


def _leaves(structs: Mapping[str, Struct], of: CType, path: str, at: int) -> Iterator[Leaf]:
    if not of.is_struct:
        yield Leaf(path, of.name, at, of.size, of.count)
        return
    names = [path] if of.count is None else [f"{path}[{n}]" for n in range(of.count)]
    for number, name in enumerate(names):
        for field in structs[of.name.removeprefix("struct ")].fields:
            inner = f"{name}.{field.name}" if name else field.name
            yield from _leaves(structs, field.type, inner, at + number * of.size + field.offset)
