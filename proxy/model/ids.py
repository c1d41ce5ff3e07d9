"""Owns the one way in which Weft names things by number; never keeps a table of what it named.

An id is the first 64 bits of a hash over the content it names. Equal content has an equal id on
every node and after every restart, so no row depends on history (docs/decisions/0001).
"""

from hashlib import blake2b


def content_id(*parts: str | bytes | int) -> int:
    """The id of what `parts` say, 1..2**64-1; 0 stays free to mean "none".

    Parts are length-prefixed and typed: ("a", "bc") and ("ab", "c") differ, as do 1 and "1".
    """
    text = b"".join(map(_framed, parts))
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") or 1


def _framed(part: str | bytes | int) -> bytes:
    if isinstance(part, bytes):
        return b"b%d:%b" % (len(part), part)
    data = part.encode() if isinstance(part, str) else b"%d" % part
    return b"%b%d:%b" % (b"s" if isinstance(part, str) else b"i", len(data), data)
