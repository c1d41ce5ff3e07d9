"""Owns the one way in which Weft names things by number; never keeps a table of what it named.

An id is the first 64 bits of a hash over the content it names. Equal content has an equal id on
every node and after every restart, so no row depends on history (docs/decisions/0001).
"""

from hashlib import blake2b


def content_id(*parts: str | bytes | int) -> int:
    """The id of what `parts` say, 1..2**64-1; 0 stays free to mean "none".

    Parts are length-prefixed and typed: ("a", "bc") and ("ab", "c") differ, as do 1 and "1".
    """
    digest = blake2b(digest_size=8)
    for part in parts:
        kind, data = _encoded(part)
        digest.update(b"%c%d:" % (kind, len(data)))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little") or 1


def _encoded(part: str | bytes | int) -> tuple[bytes, bytes]:
    if isinstance(part, str):
        return b"s", part.encode()
    if isinstance(part, bytes):
        return b"b", part
    return b"i", b"%d" % part
