"""The lease file: what survives a dead process, a full disk, a torn write and a reboot."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.cni import leases as leases_module
from weft.cni.leases import LeaseStore, now_s
from weft.cni.spec import Attachment, CniError, Code, Key


def attachment(number: int) -> Attachment:
    return Attachment(
        container_id=f"c{number}",
        ifname="eth0",
        netns=f"/run/netns/{number}",
        pod_namespace="default",
        pod_name=f"pod-{number}",
        pod_uid=f"u{number}",
        addresses=(ip_address(0x0A000002 + number), ip_address((0xFD << 120) + 2 + number)),
        host_ifname=f"weft{number}",
        host_ifindex=number,
        host_mac="02:00:00:00:00:01",
        pod_mac="02:00:00:00:00:02",
        mtu_bytes=1500,
        network="weft",
        netns_cookie=4711,
    )


def run(path: Path, work: Callable[[LeaseStore], Awaitable[None]]) -> None:
    async def inside() -> None:
        with LeaseStore(path) as store:
            await work(store)

    asyncio.run(inside())


def reopened(path: Path) -> set[Attachment]:
    with LeaseStore(path) as store:
        return set(store.attachments())


async def hold(store: LeaseStore, *numbers: int) -> None:
    await asyncio.gather(*(store.hold(attachment(number)) for number in numbers))


def test_a_lease_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    run(path, lambda store: hold(store, 1, 2))
    assert reopened(path) == {attachment(1), attachment(2)}


def test_a_lease_of_a_version_without_namespace_cookies_has_none(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    run(path, lambda store: hold(store, 1))
    assert b'"netns_cookie":4711' in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b',"netns_cookie":4711', b""))
    assert reopened(path) == {replace(attachment(1), netns_cookie=0)}


def test_a_reopened_store_does_not_give_a_held_address_out(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    run(path, lambda store: hold(store, 1))
    with LeaseStore(path) as store:
        assert store.book.owner(attachment(1).addresses[0]) == attachment(1).key


def test_a_deleted_lease_still_rests_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "leases"

    async def work(store: LeaseStore) -> None:
        await hold(store, 1)
        await store.release(attachment(1).key)

    run(path, work)
    for _ in range(2):
        with LeaseStore(path) as store:
            assert store.attachments() == ()
            assert set(store.book.resting(now_s())) == set(attachment(1).addresses)


def test_releasing_an_unknown_lease_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "leases"

    async def work(store: LeaseStore) -> None:
        before = path.read_bytes()
        await store.release(Key("nobody", "eth0"))
        assert path.read_bytes() == before

    run(path, work)


def test_a_reboot_frees_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "leases"
    run(path, lambda store: hold(store, 1))
    monkeypatch.setattr(leases_module, "boot_id", lambda: "another boot")
    assert reopened(path) == set()


def test_two_processes_cannot_hold_the_file(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    with LeaseStore(path), pytest.raises(CniError) as raised, LeaseStore(path, lock_timeout_s=0.05):
        pass
    assert raised.value.code == Code.LEASES_UNUSABLE


@pytest.mark.parametrize(
    "text", [b"", b"not json\n", b"{}\n", b'{"boot":"x","format":9}\n', b'{"boot":"x"']
)
def test_a_file_that_does_not_read_is_refused_and_left_as_it_is(
    tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / "leases"
    path.write_bytes(text)
    with pytest.raises(CniError) as raised, LeaseStore(path):
        pass
    assert raised.value.code == Code.LEASES_UNUSABLE
    assert str(path) in raised.value.details
    assert path.read_bytes() == text


def test_a_broken_line_in_the_middle_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    run(path, lambda store: hold(store, 1, 2))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"held":{}}\n' + b"".join(lines[1:]))
    with pytest.raises(CniError) as raised, LeaseStore(path):
        pass
    assert "line 2" in raised.value.details


def test_a_full_disk_refuses_the_new_lease_and_keeps_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "leases"

    async def work(store: LeaseStore) -> None:
        await hold(store, 1)
        size = path.stat().st_size
        with _limited_file_size(size + 10), pytest.raises(CniError) as raised:
            await hold(store, 2)
        assert raised.value.code == Code.IO_FAILURE
        assert store.attachments() == (attachment(1),)
        await hold(store, 3)

    run(path, work)
    assert reopened(path) == {attachment(1), attachment(3)}


def test_a_full_disk_keeps_nobody_from_releasing(tmp_path: Path) -> None:
    path = tmp_path / "leases"

    async def work(store: LeaseStore) -> None:
        await hold(store, 1)
        with _limited_file_size(path.stat().st_size), pytest.raises(CniError) as raised:
            await store.release(attachment(1).key)
        assert raised.value.code == Code.IO_FAILURE
        assert store.attachments() == ()
        assert store.book.owner(attachment(1).addresses[0]) is None

    run(path, work)
    assert reopened(path) == {attachment(1)}


def test_history_is_dropped_when_it_outgrows_what_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "_HISTORY_LINES_MAX", 10)
    path = tmp_path / "leases"

    async def work(store: LeaseStore) -> None:
        await hold(store, 0)
        for number in range(1, 60):
            await hold(store, number)
            await store.release(attachment(number).key)

    run(path, work)
    assert reopened(path) == {attachment(0)}


def test_holding_a_lease_costs_the_same_with_8000_held(tmp_path: Path) -> None:
    async def inside() -> dict[str, float]:
        best_s = {"few": 9.0, "many": 9.0}
        with LeaseStore(tmp_path / "few") as few, LeaseStore(tmp_path / "many") as many:
            await hold(many, *range(8000))
            for number in range(8000, 8100):
                for name, store in (("few", few), ("many", many)):
                    start_s = now_s()
                    await hold(store, number)
                    best_s[name] = min(best_s[name], now_s() - start_s)
        return best_s

    best_s = asyncio.run(inside())
    assert best_s["many"] < 1.5 * best_s["few"]


changes = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=20)


@settings(max_examples=60, deadline=None)
@given(changes, st.floats(0, 1))
def test_a_file_cut_anywhere_tells_a_prefix_of_what_was_acknowledged(
    script: list[tuple[bool, int]], cut: float
) -> None:
    """A process that dies in any write leaves some earlier state, whole."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "leases"
        states: list[set[Attachment]] = [set()]

        async def work(store: LeaseStore) -> None:
            for is_hold, number in script:
                if is_hold and store.find(attachment(number).key) is None:
                    await store.hold(attachment(number))
                else:
                    await store.release(attachment(number).key)
                states.append(set(store.attachments()))

        run(path, work)
        data = path.read_bytes()
        header = data.index(b"\n") + 1
        path.write_bytes(data[: header + int(cut * (len(data) - header))])
        assert reopened(path) in states


class _limited_file_size:
    """Makes writes beyond `size_bytes` fail as on a full disk."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes

    def __enter__(self) -> None:
        import resource
        import signal

        self._signal = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size_bytes, self._limits[1]))

    def __exit__(self, *_: object) -> None:
        import resource
        import signal

        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        signal.signal(signal.SIGXFSZ, self._signal)


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    run(path, lambda store: hold(store, 1))
    assert os.stat(path).st_mode & 0o777 == 0o600
