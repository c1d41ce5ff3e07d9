"""Owns how text of the API becomes addresses, prefixes and times; never touches an object's shape.

Go's ParseIPSloppy and ParseCIDRSloppy: stored objects carry leading zeros ("010.0.0.1" is
10.0.0.1), host bits ("10.0.0.7/8") and mapped addresses ("::ffff:10.0.0.0/104" is 10.0.0.0/8).
"""

from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from sys import intern

from weft.proxy.model.objects import Address, Network

_MAPPED_BITS = 96


def parse_address(text: str) -> Address:
    """The address that `text` writes, a mapped one as IPv4. ValueError says what is wrong."""
    if ":" not in text:
        return _ipv4(text)
    if "%" in text:
        raise ValueError(f"{text!r} names a zone, which no API field may")
    if "." in text:
        head, _, tail = text.rpartition(":")
        text = f"{head}:{_ipv4(tail)}"
    address = IPv6Address(text)
    return address.ipv4_mapped or address


def _ipv4(text: str) -> IPv4Address:
    """Four decimal numbers; unlike ipaddress it lets zeros lead them, and takes half the time."""
    digits = text.replace(".", "")
    parts = text.split(".")
    if len(parts) == 4 and digits.isascii() and digits.isdigit() and all(parts):
        numbers = tuple(map(int, parts))
        if max(numbers) < 256:
            return IPv4Address(int.from_bytes(numbers, "big"))
    raise ValueError(f"{text!r} is not an IPv4 address")


def parse_network(text: str) -> Network:
    """The prefix that `text` writes, its host bits cleared. ValueError says what is wrong."""
    written, slash, bits = text.partition("/")
    if not slash or not (bits.isascii() and bits.isdigit()):
        raise ValueError(f"{text!r} is not an address, a slash and a number of bits")
    address, length = parse_address(written), int(bits)
    if ":" not in written:
        return IPv4Network((int(address), length), strict=False)
    if address.version == 6:
        return IPv6Network((int(address), length), strict=False)
    if length >= _MAPPED_BITS:
        return IPv4Network((int(address), length - _MAPPED_BITS), strict=False)
    return IPv6Network((int(IPv6Address(f"::ffff:{address}")), length), strict=False)


def parse_time_ns(text: str) -> int:
    """RFC 3339 to UNIX nanoseconds; 0 where it cannot be read, since it only feeds a metric."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        return 0
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1_000


def shared_labels(labels: dict[str, str] | None) -> dict[str, str]:
    """`labels` with every string held once in the process: replicas repeat them."""
    return {intern(key): intern(value) for key, value in (labels or {}).items()}
