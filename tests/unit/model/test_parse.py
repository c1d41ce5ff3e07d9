"""Addresses, prefixes and times as stored objects really write them."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.proxy.model.parse import parse_address, parse_network, parse_time_ns


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("010.000.0.01", "10.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:010.0.0.01", "10.0.0.1"),
        ("::FFFF:a00:1", "10.0.0.1"),
        ("64:ff9b::010.0.0.1", "64:ff9b::a00:1"),
        ("FD00:0:0::01", "fd00::1"),
        ("::", "::"),
    ],
)
def test_an_address_is_read_sloppily(text: str, means: str) -> None:
    assert parse_address(text) == ip_address(means)


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0", "10.0.0.0.1", "10..0.1", "256.0.0.1", "+1.0.0.1", "1_0.0.0.1", " 10.0.0.1",
     "٣.0.0.1", "fe80::1%eth0", ":::", "1:2", "::ffff:1.2.3", "None", "a.b.c.d"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@given(number=st.integers(0, 2**32 - 1))
def test_every_ipv4_address_comes_back(number: int) -> None:
    assert parse_address(str(IPv4Address(number))) == IPv4Address(number)


@given(number=st.integers(0, 2**128 - 1))
def test_every_ipv6_address_comes_back(number: int) -> None:
    address = IPv6Address(number)
    assert parse_address(str(address)) == (address.ipv4_mapped or address)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("010.1.0.0/16", "10.1.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3/96", "0.0.0.0/0"),
        ("::ffff:10.1.2.3/90", "::ffc0:0:0/90"),
        ("fd00::1/64", "fd00::/64"),
        ("::/0", "::/0"),
    ],
)
def test_a_prefix_is_read_sloppily(text: str, means: str) -> None:
    assert parse_network(text) == ip_network(means)


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.1", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/255.0.0.0", "::/129",
     "/8", "10.0.0.0/8/8", "10.0.0.0/ 8"],
)  # fmt: skip
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_network(text)


@pytest.mark.parametrize(
    ("text", "means_ns"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("2023-11-14T22:13:20.5Z", 1_700_000_000_500_000_000),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000_000_000_000),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_000),
        ("yesterday", 0),
        ("2023-11-14T22:13:20", 0),
        ("", 0),
    ],
)
def test_a_time_is_nanoseconds_or_none(text: str, means_ns: int) -> None:
    assert parse_time_ns(text) == means_ns
