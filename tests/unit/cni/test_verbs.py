"""What the verbs decide, without doing any of it."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from weft.cni import verbs
from weft.cni.check import Seen, disagreements
from weft.cni.node import LinkMode, PodNetwork
from weft.cni.spec import Attachment, CniError, Code, Key, Request, parse_request
from weft.cni.wiring import LinkState

ROUTED = PodNetwork((ip_network("10.0.0.0/24"), ip_network("fd00::/64")), LinkMode.ROUTED, 1450)
BRIDGED = replace(ROUTED, mode=LinkMode.BRIDGE, bridge="pods")
ADDRESSES = (ip_address("10.0.0.5"), ip_address("fd00::5"))


def request(command: str = "ADD", **config: object) -> Request:
    env = {
        "CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/a",
        "CNI_IFNAME": "eth0", "CNI_PATH": "/bin",
    }  # fmt: skip
    text = {"cniVersion": "1.1.0", "name": "weft", "type": "weft-cni", **config}
    return parse_request(env, json.dumps(text).encode())


def attached(command: str = "ADD", **config: object) -> Attachment:
    plan = verbs.plan_link(request(command, **config), ROUTED, ADDRESSES)
    return verbs.attachment_of(request(command, **config), plan, 7, netns_cookie=4711)


def test_a_host_end_is_named_by_its_attachment_within_the_kernels_15_characters() -> None:
    names = {verbs.host_ifname(Key(f"c{i}", f)) for i in range(500) for f in ("eth0", "net1")}
    assert len(names) == 1000
    assert all(name.startswith("weft") and len(name) == 15 for name in names)


def test_a_routed_pod_has_addresses_of_its_own_and_link_local_gateways() -> None:
    plan = verbs.plan_link(request(), ROUTED, ADDRESSES)
    assert [str(one) for one in plan.addresses] == ["10.0.0.5/32", "fd00::5/128"]
    assert [str(one) for one in plan.gateways] == ["169.254.1.1", "fe80::1"]
    assert plan.host_mac == verbs.ROUTED_HOST_MAC


def test_a_bridged_pod_has_the_ranges_prefix_and_the_bridges_addresses_as_gateways() -> None:
    plan = verbs.plan_link(request(), BRIDGED, ADDRESSES)
    assert [str(one) for one in plan.addresses] == ["10.0.0.5/24", "fd00::5/64"]
    assert [str(one) for one in plan.gateways] == ["10.0.0.1", "fd00::1"]
    assert plan.host_mac != verbs.plan_link(request(), ROUTED, ADDRESSES).host_mac


def test_whoever_gets_an_address_next_gets_its_mac_too() -> None:
    assert verbs.pod_mac(ADDRESSES) == verbs.pod_mac((ADDRESSES[0],))
    assert verbs.pod_mac(ADDRESSES) != verbs.pod_mac((ip_address("10.0.0.6"),))


def test_a_requested_mac_is_the_pods() -> None:
    wanted = request(runtimeConfig={"mac": "02:00:00:00:00:0f"})
    assert verbs.plan_link(wanted, ROUTED, ADDRESSES).pod_mac == "02:00:00:00:00:0f"


def test_an_add_behind_another_plugin_is_refused() -> None:
    with pytest.raises(CniError) as raised:
        verbs.refuse_chained(request(prevResult={"ips": []}).config)
    assert raised.value.code == Code.INVALID_CONFIG
    verbs.refuse_chained(request(prevResult=None).config)


HELD = [
    replace(attached(), container_id="a"),
    replace(attached(), container_id="b"),
    replace(attached(), container_id="x", network="other"),
]


def stale(**keys: object) -> set[str]:
    return {key.container_id for key in verbs.stale_keys(request("GC", **keys).config, HELD)}


def test_gc_without_a_list_frees_nothing() -> None:
    assert stale() == set()


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_frees_what_either_key_does_not_list(key: str) -> None:
    assert stale(**{key: [{"containerID": "a", "ifname": "eth0"}]}) == {"b"}
    assert stale(**{key: [{"containerID": "a", "ifname": "net1"}]}) == {"a", "b"}


def test_gc_with_an_empty_list_frees_all_of_its_own_network_only() -> None:
    assert stale(**{"cni.dev/valid-attachments": []}) == {"a", "b"}


HOST = LinkState(7, "weftX", verbs.ROUTED_HOST_MAC, 1450, 2, 0, True, True)
POD = LinkState(2, "eth0", "02:00:00:00:00:02", 1450, 7, 0, True, True)
PREVIOUS = (ip_interface("10.0.0.5/32"), ip_interface("fd00::5/128"))
FINE = Seen(
    host=HOST,
    pod=POD,
    addresses=frozenset(PREVIOUS),
    default_families=frozenset({4, 6}),
    routed_by=((ADDRESSES[0], 7), (ADDRESSES[1], 7)),
)


def found(seen: Seen, mode: LinkMode = LinkMode.ROUTED) -> str:
    return "; ".join(disagreements(attached(), PREVIOUS, mode, seen))


def test_check_is_silent_when_all_is_as_added() -> None:
    assert found(FINE) == ""


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(FINE, host=None), "the host end"),
        (replace(FINE, host=replace(HOST, is_up=False)), "is down"),
        (replace(FINE, host=replace(HOST, peer_ifindex=9)), "not the other end"),
        (replace(FINE, pod=None), "no interface eth0"),
        (replace(FINE, pod=replace(POD, is_up=False)), "eth0 is down"),
        (replace(FINE, addresses=frozenset(PREVIOUS[:1])), "lacks fd00::5/128"),
        (replace(FINE, default_families=frozenset({4})), "no IPv6 default route"),
        (replace(FINE, routed_by=((ADDRESSES[0], 3), (ADDRESSES[1], 7))), "route to 10.0.0.5"),
    ],
)
def test_check_says_what_is_not_as_it_was_added(seen: Seen, words: str) -> None:
    assert words in found(seen)


def test_check_tolerates_what_later_plugins_of_the_chain_change() -> None:
    more = FINE.addresses | {ip_interface("192.168.7.7/24")}
    changed = replace(FINE, pod=replace(POD, mac="02:00:00:00:00:99"), addresses=more)
    assert found(changed) == ""


def test_check_names_addresses_that_this_attachment_never_held() -> None:
    previous = (ip_interface("10.0.0.77/32"),)
    assert "10.0.0.77" in "; ".join(disagreements(attached(), previous, LinkMode.ROUTED, FINE))


def test_a_bridged_pod_needs_no_route_of_its_own_on_the_node() -> None:
    seen = replace(FINE, routed_by=((ADDRESSES[0], 3), (ADDRESSES[1], 3)))
    assert found(seen, LinkMode.BRIDGE) == ""
