"""Which address a pod gets."""

import time
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.cni.ipam import AddressBook, capacity, check_ranges, is_assignable
from weft.cni.node import Range
from weft.cni.spec import Address, CniError, Code, Key

V4, V6 = ip_network("10.0.0.0/28"), ip_network("fd00::/64")
BOTH: tuple[Range, ...] = (V4, V6)
A, B, C = (Key(name, "eth0") for name in "abc")


def refused(book: AddressBook, ranges: tuple[Range, ...], *wanted: Address) -> CniError:
    with pytest.raises(CniError) as raised:
        book.allocate(C, ranges, wanted)
    return raised.value


def test_a_pod_gets_one_address_of_each_family_ipv4_first() -> None:
    first = AddressBook().allocate(A, (V6, V4), ())
    assert first == (ip_address("10.0.0.2"), ip_address("fd00::2"))


def test_network_gateway_and_broadcast_are_nobodys() -> None:
    book = AddressBook()
    given_out = {book.allocate(Key(str(i), "eth0"), (V4,), ())[0] for i in range(capacity(V4))}
    assert given_out == {ip_address(f"10.0.0.{i}") for i in range(2, 15)}


def test_addresses_go_in_turn_and_a_released_one_goes_last() -> None:
    book = AddressBook()
    book.release(A, book.allocate(A, (V4,), ()), 0)
    assert book.allocate(B, (V4,), ()) == (ip_address("10.0.0.3"),)


def test_the_address_released_longest_ago_is_reused_first() -> None:
    book = AddressBook()
    keys = [Key(str(i), "eth0") for i in range(capacity(V4))]
    held = {key: book.allocate(key, (V4,), ()) for key in keys}
    for second, key in enumerate((keys[7], keys[3], keys[9])):
        book.release(key, held[key], second)
    assert [book.allocate(Key(x, "eth0"), (V4,), ()) for x in "xyz"] == [
        held[keys[7]], held[keys[3]], held[keys[9]]
    ]  # fmt: skip


def test_a_dry_range_shortens_the_cooldown_instead_of_refusing() -> None:
    book = AddressBook(cooldown_s=30)
    keys = [Key(str(i), "eth0") for i in range(capacity(V4))]
    held = [book.allocate(key, (V4,), ()) for key in keys]
    book.release(keys[0], held[0], 100)
    assert book.resting(101) == {held[0][0]: 100}
    assert book.allocate(A, (V4,), ()) == held[0]
    assert book.resting(101) == {}


def test_an_exhausted_range_is_named_with_its_counts() -> None:
    book = AddressBook()
    for i in range(capacity(V4)):
        book.allocate(Key(str(i), "eth0"), (V4,), ())
    error = refused(book, (V4,))
    assert error.code == Code.RANGE_EXHAUSTED
    assert "10.0.0.0/28" in error.msg
    assert "13 of 13" in error.details


def test_when_one_family_is_exhausted_the_other_keeps_its_address() -> None:
    book = AddressBook()
    for i in range(capacity(V4)):
        book.allocate(Key(str(i), "eth0"), (V4,), ())
    refused(book, BOTH)
    assert book.owner(ip_address("fd00::2")) is None


def test_a_second_range_of_a_family_serves_when_the_first_is_full() -> None:
    book, more = AddressBook(), ip_network("10.1.0.0/24")
    for i in range(capacity(V4)):
        book.allocate(Key(str(i), "eth0"), (V4, more), ())
    assert book.allocate(A, (V4, more), ()) == (ip_address("10.1.0.2"),)


def test_a_requested_address_is_given_and_the_other_family_chosen() -> None:
    got = AddressBook().allocate(A, BOTH, [ip_address("fd00::99")])
    assert got == (ip_address("10.0.0.2"), ip_address("fd00::99"))


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.1", "10.0.0.15", "10.9.0.1", "fd00::1"])
def test_what_is_no_pods_address_cannot_be_requested(text: str) -> None:
    error = refused(AddressBook(), BOTH, ip_address(text))
    assert error.code == Code.ADDRESS_OUTSIDE_RANGES


def test_a_taken_address_cannot_be_requested_and_its_holder_is_named() -> None:
    book = AddressBook()
    book.allocate(A, BOTH, ())
    error = refused(book, BOTH, ip_address("10.0.0.2"))
    assert error.code == Code.ADDRESS_TAKEN
    assert str(A) in error.details


def test_releasing_what_another_holds_changes_nothing() -> None:
    book = AddressBook()
    (address,) = book.allocate(A, (V4,), ())
    book.release(B, [address], 0)
    assert book.owner(address) == A


@pytest.mark.parametrize("text", ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127"])
def test_a_range_without_room_for_a_pod_is_refused(text: str) -> None:
    with pytest.raises(CniError) as raised:
        check_ranges([ip_network(text)])
    assert raised.value.code == Code.BAD_RANGE


def test_overlapping_ranges_are_refused_naming_both() -> None:
    with pytest.raises(CniError) as raised:
        check_ranges([ip_network("10.0.0.0/16"), V6, V4])
    assert raised.value.code == Code.BAD_RANGE
    assert raised.value.details == "10.0.0.0/16 and 10.0.0.0/28"


def test_no_range_at_all_says_where_one_would_come_from() -> None:
    with pytest.raises(CniError) as raised:
        check_ranges([])
    assert raised.value.code == Code.NO_RANGE
    assert "podCIDRs" in raised.value.details


def test_addresses_of_a_former_range_stay_held_until_released() -> None:
    book = AddressBook()
    (old,) = book.allocate(A, (V4,), ())
    assert book.allocate(B, (ip_network("10.2.0.0/24"),), ()) == (ip_address("10.2.0.2"),)
    assert book.owner(old) == A


def test_choosing_costs_the_same_with_8000_addresses_taken() -> None:
    wide = ip_network("10.0.0.0/18")

    def cpu_s(taken: int) -> float:
        book = AddressBook()
        for i in range(taken):
            book.allocate(Key(str(i), "eth0"), (wide,), ())
        start_s = time.process_time()
        for i in range(500):
            book.allocate(Key(f"late{i}", "eth0"), (wide,), ())
        return time.process_time() - start_s

    rounds = [(cpu_s(0), cpu_s(8000)) for _ in range(5)]
    assert min(many for _, many in rounds) < 2 * min(few for few, _ in rounds)


steps = st.lists(
    st.tuples(st.sampled_from(["add", "delete", "ask"]), st.integers(0, 20), st.integers(0, 18)),
    max_size=120,
)


@given(steps)
def test_no_address_is_ever_held_twice_or_lost(script: list[tuple[str, int, int]]) -> None:
    """Whatever is added, asked for and deleted: held + free is the range, holders are distinct."""
    book = AddressBook()
    held: dict[Key, tuple[Address, ...]] = {}
    for now_s, (step, pod, host) in enumerate(script):
        key = Key(str(pod), "eth0")
        if step == "delete":
            book.release(key, held.pop(key, ()), now_s)
        elif key not in held:
            wanted = (V4[host % 16],) if step == "ask" else ()
            taken = {address for one in held.values() for address in one}
            try:
                held[key] = book.allocate(key, (V4,), wanted)
            except CniError:
                full = len(taken) == capacity(V4)
                assert full or (wanted and (wanted[0] in taken or not is_assignable(V4, wanted[0])))
    taken_now = [address for one in held.values() for address in one]
    assert len(set(taken_now)) == len(taken_now)
    assert all(book.owner(one) == key for key, (one,) in held.items())
    for i in range(capacity(V4) - len(taken_now)):
        book.allocate(Key(f"rest{i}", "eth0"), (V4,), ())
    refused(book, (V4,))


def test_an_address_released_after_the_cluster_was_heard_last_is_not_given_again() -> None:
    book = AddressBook()
    keys = [Key(str(i), "eth0") for i in range(capacity(V4))]
    held = [book.allocate(key, (V4,), ()) for key in keys]
    book.release(keys[5], held[5], 100)
    book.release(keys[6], held[6], 200)
    assert book.allocate(A, (V4,), (), heard_s=150) == held[5]
    with pytest.raises(CniError, match="while the API server was away") as raised:
        book.allocate(B, (V4,), (), heard_s=150)
    assert raised.value.code is Code.RANGE_EXHAUSTED
    assert book.allocate(B, (V4,), (), heard_s=250) == held[6]
