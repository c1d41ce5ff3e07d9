"""Programs on real links and cgroups: attached once, replaced without a gap, gone with their link.
They count what they see and let it go on.
"""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.netns.hook_scene import (
    Node,
    inside,
    mounted_bpffs,
    namespace,
    packets,
    run,
    sub_cgroup,
    wait_for,
)
from tests.unit.bpf.tiny import TINY
from weft.bpf import build, syscall
from weft.bpf.clsact import LinkDirection
from weft.bpf.features import probe
from weft.bpf.hook import STALE, Errors, Hooks, LinkPlace, Place, SocketPlace
from weft.bpf.pins import HOOKS, ForeignPin

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

CONNECT4, FROM_POD, TO_POD, FROM_UPLINK, TO_UPLINK = 1, 8, 9, 10, 11
IN, OUT = LinkDirection.INGRESS, LinkDirection.EGRESS
_numbers = count()


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hooks")
    (folder / "tiny.bpf.c").write_text(TINY)
    return build.build([folder / "tiny.bpf.c"], build.FOLDER / "include", folder / "cache")


@pytest.fixture
def node(tmp_path: Path, objects: Path) -> Iterator[Node]:
    with ExitStack() as stack:
        name = stack.enter_context(namespace(f"wt-hooks-{os.getpid()}-{next(_numbers)}"))
        stack.enter_context(inside(name))
        run("ip", "link", "set", "lo", "up")
        pins = stack.enter_context(mounted_bpffs(tmp_path / "bpffs"))
        cgroup = stack.enter_context(sub_cgroup(name))
        yield Node(name, pins / "weft", cgroup, objects, stack)


def ping(pod: int) -> None:
    run("ping", "-c", "1", "-W", "2", f"10.9.{pod}.2")


def pod_places(*links: int) -> dict[Place, str]:
    ingress: dict[Place, str] = {LinkPlace(link, IN, shared=True): "from_pod" for link in links}
    return ingress | {LinkPlace(link, OUT, shared=True): "to_pod" for link in links}


def uplink_places(link: int) -> dict[Place, str]:
    return {LinkPlace(link, IN): "from_uplink", LinkPlace(link, OUT): "to_uplink"}


def no_errors(errors: Errors) -> bool:
    assert not errors, dict(errors)
    return True


def test_every_pods_link_runs_the_programs_of_its_two_directions(node: Node) -> None:
    links = [node.add_pod(number) for number in (1, 2, 3)]
    with node.daemon() as (datapath, hooks):
        assert no_errors(hooks.attach(pod_places(*links)))
        for pod in (1, 2, 3):
            before = packets(datapath, FROM_POD), packets(datapath, TO_POD)
            ping(pod)
            assert packets(datapath, FROM_POD) > before[0]
            assert packets(datapath, TO_POD) > before[1]
        assert hooks.attached() == pod_places(*links)


def test_attaching_again_changes_nothing(node: Node) -> None:
    link = node.add_pod(1)
    with node.daemon() as (_, hooks):
        for _again in range(3):
            assert no_errors(hooks.attach(pod_places(link)))
        assert hooks.attached() == pod_places(link)


def test_hooks_outlive_the_daemon_and_the_next_one_sees_that_they_are_old(node: Node) -> None:
    pod, uplink = node.add_pod(1), node.add_pod(2)
    wanted = pod_places(pod) | uplink_places(uplink) | {SocketPlace("connect4"): "connect4"}
    with node.daemon() as (_, hooks):
        assert no_errors(hooks.attach(wanted))
    ping(1)
    ping(2)
    with node.daemon() as (datapath, hooks):
        assert packets(datapath, FROM_POD) > 0
        assert packets(datapath, FROM_UPLINK) > 0
        assert hooks.attached() == {place: STALE + name for place, name in wanted.items()}
        assert no_errors(hooks.attach(wanted))
        assert hooks.attached() == wanted


def test_one_pods_leaving_does_not_touch_the_others(node: Node) -> None:
    one, two = node.add_pod(1), node.add_pod(2)
    with node.daemon() as (datapath, hooks):
        assert no_errors(hooks.attach(pod_places(one, two)))
        assert no_errors(hooks.detach(pod_places(one)))
        assert hooks.attached() == pod_places(two)
        before = packets(datapath, FROM_POD)
        ping(1)
        assert packets(datapath, FROM_POD) == before
        ping(2)
        assert packets(datapath, FROM_POD) > before


def test_the_first_pod_after_the_last_one_left_runs_the_programs(node: Node) -> None:
    one, two = node.add_pod(1), node.add_pod(2)
    with node.daemon() as (datapath, hooks):
        assert no_errors(hooks.attach(pod_places(one)))
        assert no_errors(hooks.detach(pod_places(one)))
        assert no_errors(hooks.attach(pod_places(two)))
        ping(2)
        assert packets(datapath, FROM_POD) > 0


@pytest.mark.parametrize("has_tcx", [True, False])
def test_an_uplink_runs_its_programs_with_and_without_tcx(node: Node, has_tcx: bool) -> None:
    if has_tcx and not probe().tcx:
        pytest.skip("this kernel has no tcx")
    link = node.add_pod(1)
    with node.daemon(has_tcx=has_tcx) as (datapath, hooks):
        for _again in range(2):
            assert no_errors(hooks.attach(uplink_places(link)))
        ping(1)
        assert packets(datapath, FROM_UPLINK) > 0
        assert packets(datapath, TO_UPLINK) > 0
        assert hooks.attached() == uplink_places(link)
        assert no_errors(hooks.detach(uplink_places(link)))
        assert hooks.attached() == {}
        assert "clsact" not in run("tc", "qdisc", "show", "dev", "host1")


@pytest.mark.parametrize("has_tcx", [True, False])
def test_detaching_what_is_not_attached_or_gone_is_success(node: Node, has_tcx: bool) -> None:
    with node.daemon(has_tcx=has_tcx) as (_, hooks):
        assert no_errors(hooks.detach([*pod_places(999_999), SocketPlace("connect4")]))


def test_a_link_that_is_not_there_is_an_error_of_its_row_only(node: Node) -> None:
    link = node.add_pod(1)
    with node.daemon() as (_, hooks):
        errors = hooks.attach(pod_places(link, 999_999) | uplink_places(999_998))
        assert set(errors) == {*pod_places(999_999), *uplink_places(999_998)}
        assert all("ENODEV" in words for words in errors.values())
        assert hooks.attached() == pod_places(link)


def test_a_hook_whose_link_went_away_is_forgotten(node: Node) -> None:
    link = node.add_pod(1)
    with node.daemon() as (_, hooks):
        assert no_errors(hooks.attach(uplink_places(link)))
        run("ip", "link", "delete", "host1")
        assert hooks.attached() == {}
        assert list((node.pins / HOOKS).iterdir()) == []


def test_a_pin_of_a_link_that_went_away_does_not_hinder_its_successor(node: Node) -> None:
    link = node.add_pod(1)
    with node.daemon() as (datapath, hooks):
        assert no_errors(hooks.attach(uplink_places(link)))
        run("ip", "link", "delete", "host1")
        run("ip", "link", "add", "host9", "index", str(link), "type", "veth", "peer", "name", "p9")
        assert no_errors(hooks.attach(uplink_places(link)))
        run("ip", "link", "set", "host9", "up")
        run("ip", "link", "set", "p9", "up")
        wait_for(lambda: packets(datapath, TO_UPLINK) > 0, "the new link's first packet")


@pytest.mark.parametrize("has_tcx", [True, False])
def test_anothers_ingress_qdisc_keeps_a_pod_out_of_the_block(node: Node, has_tcx: bool) -> None:
    link = node.add_pod(1)
    run("tc", "qdisc", "add", "dev", "host1", "ingress")
    with node.daemon(has_tcx=has_tcx) as (_, hooks):
        errors = hooks.attach(pod_places(link))
        assert set(errors) == set(pod_places(link))
        assert all("EEXIST" in words for words in errors.values())


@pytest.mark.parametrize("has_tcx", [True, False])
def test_programs_of_others_on_the_same_link_run_too_and_stay(node: Node, has_tcx: bool) -> None:
    link = node.add_pod(1)
    with node.daemon(has_tcx=has_tcx) as (datapath, hooks):
        others = node.pins.parent / "others"
        syscall.pin(datapath.program("from_pod").fd, others)
        run("tc", "qdisc", "add", "dev", "host1", "clsact")
        where = ("dev", "host1", "ingress", "prio", "7", "protocol", "all")
        run("tc", "filter", "add", *where, "bpf", "da", "object-pinned", str(others))
        assert no_errors(hooks.attach(uplink_places(link)))
        ping(1)
        assert packets(datapath, FROM_UPLINK) == packets(datapath, FROM_POD) > 0
        assert no_errors(hooks.detach(uplink_places(link)))
        assert "from_pod" in run("tc", "filter", "show", "dev", "host1", "ingress")


CONNECT = """
import os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.connect(("127.0.0.1", 9))
"""


def test_a_socket_hook_sees_the_processes_of_its_cgroup(node: Node) -> None:
    place = SocketPlace("connect4")
    with node.daemon() as (datapath, hooks):
        assert no_errors(hooks.attach({place: "connect4"}))
        run(sys.executable, "-c", CONNECT, str(node.cgroup))
        assert packets(datapath, CONNECT4) == 1
        assert no_errors(hooks.detach([place]))
        run(sys.executable, "-c", CONNECT, str(node.cgroup))
        assert packets(datapath, CONNECT4) == 1


def test_a_hook_on_another_cgroup_moves_to_this_one(node: Node) -> None:
    place = SocketPlace("connect4")
    with sub_cgroup(f"{node.name}-old") as old, node.daemon() as (datapath, hooks):
        with Hooks(datapath.programs, node.pins, old, has_tcx=True) as older:
            assert no_errors(older.attach({place: "connect4"}))
        assert no_errors(hooks.attach({place: "connect4"}))
        run(sys.executable, "-c", CONNECT, str(node.cgroup))
        assert packets(datapath, CONNECT4) == 1


@pytest.mark.parametrize("name", ["strange", "link-x-ingress", "link-1-sideways"])
def test_a_strange_pin_among_the_hooks_is_refused_and_named(node: Node, name: str) -> None:
    with node.daemon() as (datapath, hooks):
        syscall.pin(datapath.program("from_pod").fd, node.pins / HOOKS / name)
        with pytest.raises(ForeignPin, match=f"{name} is unknown, where a hook"):
            hooks.attached()


def test_a_program_pinned_in_the_place_of_a_hook_is_refused_and_named(node: Node) -> None:
    with node.daemon() as (datapath, hooks):
        syscall.pin(datapath.program("from_pod").fd, node.pins / HOOKS / "cgroup-connect4")
        with pytest.raises(ForeignPin, match="bpf-prog, where a link of ours"):
            hooks.attached()


LEAST = """
import sys
from pathlib import Path
from weft.bpf.clsact import LinkDirection
from weft.bpf.features import probe
from weft.bpf.hook import Hooks, LinkPlace, SocketPlace
from weft.bpf.load import open_datapath
pod, uplink, pins, objects, cgroup = int(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:])
wanted = {
    LinkPlace(pod, LinkDirection.INGRESS, shared=True): "from_pod",
    LinkPlace(pod, LinkDirection.EGRESS, shared=True): "to_pod",
    LinkPlace(uplink, LinkDirection.INGRESS): "from_uplink",
    SocketPlace("connect4"): "connect4",
}
for start in range(2):
    with (
        open_datapath(pins=pins, objects=objects, entries={"flows": 1024 << start}) as datapath,
        Hooks(datapath.programs, pins, cgroup, has_tcx=probe().tcx) as hooks,
    ):
        assert not datapath.untyped, datapath.untyped
        assert start == len(datapath.migration.moves) == hooks.outdated()
        assert not start or all(name.startswith("stale:") for name in hooks.attached().values())
        assert not hooks.attach(wanted)
        assert hooks.attached() == wanted and not hooks.outdated()
        list(datapath.migration.finish())
"""


def test_three_capabilities_are_enough_to_load_attach_list_replace_and_migrate(node: Node) -> None:
    pod, uplink = node.add_pod(1), node.add_pod(2)
    least = ("setpriv", "--bounding-set=-all,+bpf,+net_admin,+perfmon", "--inh-caps=-all")
    places = (str(pod), str(uplink), str(node.pins), str(node.objects), str(node.cgroup))
    run(*least, sys.executable, "-c", LEAST, *places)


class Stream:
    """Datagrams to a pod, echoed by it, until the `with` ends; then every one has come back."""

    def __init__(self, node: Node, pod: int) -> None:
        self.sent = self.returned = 0
        self._stop_sending, self._stop_answering = threading.Event(), threading.Event()
        self._address = (f"10.9.{pod}.2", 9_000)
        with inside(f"{node.name}-p{pod}"):
            self._echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._echo.bind(("0.0.0.0", 9_000))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._echoing = threading.Thread(target=self._answer)
        self._sending = threading.Thread(target=self._send)

    def __enter__(self) -> "Stream":
        self._echo.settimeout(0.5)
        self._socket.settimeout(2)
        self._echoing.start()
        self._sending.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_sending.set()
        self._sending.join()
        self._stop_answering.set()
        self._echoing.join()
        self._echo.close()
        self._socket.close()

    def _answer(self) -> None:
        while not self._stop_answering.is_set():
            try:
                data, sender = self._echo.recvfrom(64)
            except TimeoutError:
                continue
            self._echo.sendto(data, sender)

    def _send(self) -> None:
        while not self._stop_sending.is_set():
            self.sent += 1
            self._socket.sendto(b"%d" % self.sent, self._address)
            try:
                self.returned += self._socket.recv(64) == b"%d" % self.sent
            except TimeoutError:
                return


@pytest.mark.parametrize("kind", ["pod", "uplink", "uplink without tcx"])
def test_no_packet_is_lost_while_programs_are_replaced(node: Node, kind: str) -> None:
    link = node.add_pod(1)
    wanted = pod_places(link) if kind == "pod" else uplink_places(link)
    has_tcx = kind != "uplink without tcx"
    with node.daemon(has_tcx=has_tcx) as (_, hooks):
        assert no_errors(hooks.attach(wanted))
    with Stream(node, 1) as stream:
        for _round in range(10):
            with node.daemon(has_tcx=has_tcx) as (_, hooks):
                assert no_errors(hooks.attach(wanted))
                assert hooks.attached() == wanted
    assert stream.returned == stream.sent > 10
