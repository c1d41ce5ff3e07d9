"""What is told to nftables reads back as it was said, and what another hand said never does."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.proxy.apply.nfnetlink import attribute, nest, number
from weft.proxy.apply.nfrules import (
    UNKNOWN,
    member_read,
    member_told,
    read_rule,
    shape_read,
    shape_told,
    told,
)
from weft.proxy.model.objects import Address
from weft.proxy.plan.nft import (
    Act,
    Field,
    In,
    Is,
    Mark,
    Masquerade,
    OneIn,
    Refuse,
    Remember,
    Rule,
    Shape,
    Step,
    Translate,
    Verdict,
    Within,
)

V4, V6 = ip_address("10.96.0.1"), ip_address("fd00:96::1")


def steps(address: Address) -> Iterator[Step]:
    version = address.version
    yield Is(Field.PROTOCOL, 132)
    yield Is(Field.FAMILY, 10)
    yield Is(Field.IN_LINK, "weft")
    yield Is(Field.OUT_LINK, "weft")
    yield Is(Field.SOURCE, address)
    yield Within(ip_network(f"{address}/20", strict=False))
    yield In((Field.DESTINATION, Field.PORT), "pods", is_map=True, version=version)
    yield In((Field.DIALLING, Field.DESTINATION), "itself", version=version)
    yield In((Field.DIALLED, Field.DIALLED_PORT), "frontends", version=version)
    yield In((Field.SOURCE,), "clients", version=version)
    yield OneIn(3)
    yield Remember("clients", version)
    yield Translate(address, 38412)
    yield Translate(address, source=True)
    yield Masquerade()
    yield Refuse()
    yield Mark(0x77656670)
    yield Verdict(Act.JUMP, "refuse")
    yield Verdict(Act.RETURN)
    yield Verdict(Act.DROP)


STEPS = [*steps(V4), *steps(V6)]
ADDRESSES = st.sampled_from((V4, V6))


@given(st.lists(st.sampled_from(STEPS)).map(tuple))
def test_a_rule_reads_back_as_it_was_told(rule: Rule) -> None:
    assert read_rule(told(rule)) == rule


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_rule_that_ends_half_way_is_nobodys(step: Step) -> None:
    loading = told((Is(Field.PROTOCOL, 132),))
    first_bytes = int.from_bytes(loading[:2], "little") + 3 & ~3
    assert read_rule(told((step,)) + loading[:first_bytes]) == UNKNOWN


@pytest.mark.parametrize(
    "foreign",
    [
        nest(1, attribute(1, "counter")),
        nest(1, attribute(1, "cmp"), nest(2, number(1, 1), number(2, 1))),
        nest(1, attribute(1, "numgen"), nest(2, number(1, 1), number(2, 2), number(3, 0))),
        nest(1, attribute(1, "meta"), nest(2, number(1, 1), number(2, 10))),
    ],
    ids=["counter", "not equal", "in turn", "user id"],
)
def test_what_we_never_say_reads_as_unknown(foreign: bytes) -> None:
    assert read_rule(told((Is(Field.PROTOCOL, 132),)) + foreign) == UNKNOWN


@given(st.sampled_from(Shape), ADDRESSES, st.integers(1, 65535))
def test_a_member_reads_back_as_it_was_told(shape: Shape, address: Address, port: int) -> None:
    values: tuple[int | Address, ...] = {
        Shape.ADDRESS: (address,), Shape.PLACE: (address, port), Shape.PAIR: (address, address),
    }[shape]  # fmt: skip
    kind, size = shape_told(shape, address.version)
    data = member_told(values)
    assert len(data) == size
    assert shape_read(kind) == (shape, address.version)
    assert member_read(shape, address.version, data) == values


def test_a_set_of_other_things_has_no_shape() -> None:
    assert shape_read(42) is None
