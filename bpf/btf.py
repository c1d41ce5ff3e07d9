"""Reads the BTF that gcc writes about a header: structs, fields, enums.

Owns the binary format (Documentation/bpf/btf.rst) as far as a header of plain structs needs it.
Never decides what a type means in Python: that is genlayout's.
"""

import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _ENUM64 = 1, 3, 4, 5, 6, 8, 19
_QUALIFIERS = (9, 10, 11)  # volatile, const, restrict
# Bytes that follow a type's header, by kind: (fixed, for each of its members).
_TRAILERS = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0)}
_TRAILERS |= {15: (0, 12), 17: (4, 0), 19: (0, 12)}


class LayoutError(Exception):
    """A header says what the border cannot carry."""


@dataclass(frozen=True, slots=True)
class CType:
    """A field's type: the name as written, size in bytes, and how many (None: not an array)."""

    name: str
    size: int
    count: int | None = None

    @property
    def is_struct(self) -> bool:
        return self.name.startswith("struct ")


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a struct, at `offset` bytes."""

    name: str
    offset: int
    type: CType

    @property
    def size(self) -> int:
        return self.type.size * (1 if self.type.count is None else self.type.count)


@dataclass(frozen=True, slots=True)
class Struct:
    """A C struct, `size` in bytes, fields in order of declaration."""

    name: str
    size: int
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Enum:
    """A C enum, values in order of declaration; two may be equal."""

    name: str
    values: tuple[tuple[str, int], ...]


class _Section:
    """A .BTF section cut into types; type 0 is void."""

    def __init__(self, data: bytes) -> None:
        header, types, types_size, strings, _size = struct.unpack_from("<4x5I", data)
        self._data, self._strings = data, header + strings
        self.types = [_Type("", 0, 0, False, 0, b"")]
        at, end = header + types, header + types + types_size
        while at < end:
            self.types.append(self._type(at))
            at += 12 + len(self.types[-1].members)

    def text(self, offset: int) -> str:
        return _text(self._data, self._strings + offset)

    def _type(self, at: int) -> "_Type":
        name, info, size = struct.unpack_from("<3I", self._data, at)
        kind = info >> 24 & 0x1F
        fixed, each = _TRAILERS.get(kind, (0, 0))
        members = self._data[at + 12 : at + 12 + fixed + each * (info & 0xFFFF)]
        return _Type(self.text(name), kind, size, info >> 31 == 1, size, members)

    def struct(self, raw: "_Type") -> Struct:
        members = struct.iter_unpack("<3I", raw.members)
        # With the flag set the offset's upper byte is the width of a bit field.
        fields = tuple(
            Field(self.text(name), (bits & 0xFFFFFF if raw.flag else bits) // 8, self.ctype(kind))
            for name, kind, bits in members
        )
        return Struct(raw.name, raw.size, fields)

    def enum(self, raw: "_Type") -> Enum:
        members = struct.iter_unpack("<Ii", raw.members)
        return Enum(raw.name, tuple((self.text(name), value) for name, value in members))

    def ctype(self, index: int) -> CType:
        raw = self.types[index]
        if raw.kind == _ARRAY:
            element, _index, count = struct.unpack("<3I", raw.members)
            inner = self.ctype(element)
            return CType(inner.name, inner.size, count)
        if raw.kind in _QUALIFIERS:
            return self.ctype(raw.target)
        if raw.kind == _TYPEDEF:
            return CType(raw.name, self.ctype(raw.target).size)
        if raw.kind == _STRUCT:
            return CType(f"struct {raw.name}", raw.size)
        if raw.kind == _INT:
            return CType(raw.name, raw.size)
        raise LayoutError(f"a field of BTF kind {raw.kind} cannot cross the border")


@dataclass(frozen=True, slots=True)
class _Type:
    """A type as it stands in the section; C's union of size and type is two names here."""

    name: str
    kind: int
    size: int
    flag: bool
    target: int
    members: bytes


def read(section: bytes) -> tuple[tuple[Struct, ...], tuple[Enum, ...]]:
    """The named structs and enums of a .BTF section, in the section's order."""
    btf = _Section(section)
    # Names with two underscores are those of the C library's own headers.
    ours = [raw for raw in btf.types if raw.name and not raw.name.startswith("__")]
    if wide := [raw.name for raw in ours if raw.kind in (_UNION, _ENUM64)]:
        raise LayoutError(f"unions and 64-bit enums cannot cross the border: {', '.join(wide)}")
    structs = tuple(btf.struct(raw) for raw in ours if raw.kind == _STRUCT)
    return structs, tuple(btf.enum(raw) for raw in ours if raw.kind == _ENUM)


def compile_header(header: Path) -> bytes:
    """The .BTF section of `header`, compiled by gcc; raises CalledProcessError after its words."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "layout.o"
        # Without -fno-eliminate-unused-debug-types types that nothing uses vanish.
        flags = ["-gbtf", "-fno-eliminate-unused-debug-types", "-c", "-x", "c"]
        subprocess.run(["gcc", *flags, str(header), "-o", str(out)], check=True)
        return _elf_section(out.read_bytes(), ".BTF")


def _elf_section(image: bytes, wanted: str) -> bytes:
    table = struct.unpack_from("<Q", image, 0x28)[0]
    entry_size, count, names_index = struct.unpack_from("<3H", image, 0x3A)
    headers = [struct.unpack_from("<II4Q", image, table + n * entry_size) for n in range(count)]
    names = headers[names_index][4]
    for name, _kind, _flags, _address, offset, size in headers:
        if _text(image, names + name) == wanted:
            return image[offset : offset + size]
    raise LayoutError(f"the compiled header has no {wanted} section")


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
