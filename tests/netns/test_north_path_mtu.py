"""Routers whose links are narrower than those of a client outside and of its backend, on either
side of the node between them: what they say reaches the one whose packets are too long.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deploy.netlab import Lab, manifests
from deploy.netlab.shell import run, wait_for
from tests.netns.ask import Host, ask
from tests.netns.outside import default_route, forward, join, make_host
from tests.netns.outside import serve as serve_name
from tests.netns.test_mtu import OVERHEAD_BYTES
from tests.netns.test_north_south import BULK_PORT, PORT, VIPS, Stage, publish, serve_bulk
from tests.netns.test_path_mtu import MIDDLE_BYTES, learned, routed

pytestmark = pytest.mark.long

LINE_BYTES, LINE_PORT = 300_000, 8085
# A line that a server gives back as it is: segments of both directions are as long as they may be.
LINE = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as s:
    lines = s.makefile("rw")
    lines.readline()
    sent = "x" * int(sys.argv[3])
    print(sent, file=lines, flush=True)
    print("whole" if lines.readline().strip() == sent else "cut")
"""
NARROW = (("10.99.8.1/24", "fd00:99:8::1/64"), ("10.99.8.2/24", "fd00:99:8::2/64"))
CLIENTS = (("10.99.9.1/24", "fd00:99:9::1/64"), ("10.99.9.2/24", "fd00:99:9::2/64"))


@pytest.fixture(scope="module", params=["auto", "direct"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    """A client whose link is as wide as a pod's, beyond a narrow one between two routers."""
    east, west = lab.nodes
    pods = {"here": east.add_pod("here"), "there": west.add_pod("there")}
    with ExitStack() as stack:
        router, client = (make_host(lab, stack, name) for name in ("router", "client"))
        join(lab.switch, "narrow", NARROW[0], router.namespace, "narrow", NARROW[1])
        join(router.namespace, "near", CLIENTS[0], client.namespace, "eth0", CLIENTS[1])
        for host in (lab.switch, router.namespace):
            run("ip", "-n", host, "link", "set", "narrow", "mtu", str(MIDDLE_BYTES))
            forward(host)
        for network, via in (("10.99.9.0/24", "10.99.8.2"), ("fd00:99:9::/64", "fd00:99:8::2")):
            run("ip", "-n", lab.switch, "route", "add", network, "via", via)
        default_route(router.namespace, NARROW[0])
        default_route(client.namespace, CLIENTS[0])
        made = Stage(lab, client, pods)
        for place, pod in pods.items():
            serve_name(lab, stack, pod.namespace, place, PORT)
            serve_bulk(lab, stack, place, pod.namespace)
            publish(made, place, VIPS[place], f"north-{place}")
        wait_for("the Services", lambda: all(made.ask(place, 6, udp=True) for place in pods))
        yield made


def line_comes_back(client: Host, address: str, port: int) -> bool:
    argv = (sys.executable, "-c", LINE, address, str(port), str(LINE_BYTES))
    return client.attempt(*argv).stdout.strip() == "whole"


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("place", ["here", "there"])
def test_a_backend_hears_of_the_narrow_link_before_its_client(
    stage: Stage, version: int, place: str
) -> None:
    vip = VIPS[place][version]
    assert line_comes_back(stage.client, vip, PORT)
    wait_for(
        "a datagram that is too long to come back",
        lambda: stage.bulk("udp", vip, BULK_PORT, MIDDLE_BYTES) == f"ok {vip}",
    )


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_both_ends_hear_of_the_narrow_link_between_entry_node_and_backend(version: int) -> None:
    """Its tunnel carries less than what the client's own link does."""
    vip = VIPS["there"][version]
    inner_bytes = MIDDLE_BYTES - OVERHEAD_BYTES[version]
    with routed(version, MIDDLE_BYTES) as made, ExitStack() as stack:
        lab, pod = made.lab, made.pods["far"]
        serve_name(lab, stack, pod.namespace, "far", LINE_PORT)
        ports = [("tcp", "TCP", LINE_PORT)]
        lab.manifests.put(manifests.service("far", "default", [vip], ports))
        words = ("far", "default", "far", [pod.address(version)], ports, version)
        lab.manifests.put(manifests.endpoint_slice(*words))
        client = Host(lab.switch, lab.cgroup)
        entry = lab.nodes[0].underlay[0].split("/")[0]
        run("ip", "-n", lab.switch, "route", "replace", vip, "via", entry)
        wait_for("the Service", lambda: ask(client, vip, LINE_PORT) is not None)
        learned(made, inner_bytes)
        assert line_comes_back(client, vip, LINE_PORT)
