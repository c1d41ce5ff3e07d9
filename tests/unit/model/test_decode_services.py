"""What exposes a Service, whose clients an endpoint is for, and where ClusterIPs come from."""

from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from tests.unit.model.objects_json import SLICE, with_field
from weft.proxy.model.decode import decode
from weft.proxy.model.objects import Broken, Kind, Protocol, Ref, Service, ServicePort


def read(kind: Kind, manifest: object) -> Any:
    return decode(kind, msgspec.json.encode(manifest))


EXPOSED: dict[str, object] = {
    "type": "LoadBalancer",
    "clusterIP": "10.96.0.1",
    "ports": [{"port": 80, "nodePort": 30080}],
    "externalIPs": ["198.51.100.7", "2001:db8::7"],
    "loadBalancerSourceRanges": [" 192.0.2.0/24 ", "2001:db8::/32"],
    "externalTrafficPolicy": "Local",
    "internalTrafficPolicy": "Local",
    "sessionAffinity": "ClientIP",
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
    "healthCheckNodePort": 31000,
    "publishNotReadyAddresses": True,
    "trafficDistribution": "PreferSameZone",
}


def exposed(**spec: object) -> Service:
    raw = {"metadata": {"name": "a", "namespace": "b"}, "spec": {**EXPOSED, **spec}}
    record = read(Kind.SERVICE, raw)
    assert isinstance(record, Service)
    return record


def test_what_exposes_a_service_is_read() -> None:
    service = exposed()
    assert service.ports == (ServicePort("", Protocol.TCP, 80, 30080),)
    assert service.external_ips == (ip_address("198.51.100.7"), ip_address("2001:db8::7"))
    assert list(map(str, service.source_ranges)) == ["192.0.2.0/24", "2001:db8::/32"]
    assert service.internal_local
    assert service.external_local
    assert (service.affinity_s, service.health_check_node_port) == (60, 31000)
    assert service.publishes_not_ready
    assert service.traffic_distribution == "PreferSameZone"


@pytest.mark.parametrize(
    ("spec", "affinity_s"),
    [
        ({"sessionAffinity": "None"}, 0),
        ({"sessionAffinity": None}, 0),
        ({"sessionAffinityConfig": None}, 10_800),
        ({"sessionAffinityConfig": {"clientIP": {}}}, 10_800),
        ({}, 60),
    ],
)
def test_affinity_lasts_as_long_as_said_or_three_hours(
    spec: dict[str, object], affinity_s: int
) -> None:
    assert exposed(**spec).affinity_s == affinity_s


@pytest.mark.parametrize(
    ("ingress", "expected"),
    [
        ({"ip": "198.51.100.1"}, ["198.51.100.1"]),
        ({"ip": "198.51.100.1", "ipMode": "VIP"}, ["198.51.100.1"]),
        ({"ip": "198.51.100.1", "ipMode": "Proxy"}, []),
        ({"hostname": "lb.example"}, []),
    ],
)
def test_only_a_load_balancers_addresses_of_mode_vip_are_ours(
    ingress: dict[str, str], expected: list[str]
) -> None:
    raw = {
        "metadata": {"name": "a", "namespace": "b"},
        "spec": EXPOSED,
        "status": {"loadBalancer": {"ingress": [ingress]}},
    }
    service = read(Kind.SERVICE, raw)
    assert list(map(str, service.load_balancer_ips)) == expected


def test_a_source_range_that_cannot_be_read_opens_nothing() -> None:
    spec = {**EXPOSED, "loadBalancerSourceRanges": ["192.0.2.0/24", "anything"]}
    raw = {"metadata": {"name": "a", "namespace": "b"}, "spec": spec}
    assert isinstance(decode(Kind.SERVICE, msgspec.json.encode(raw)), Broken)


def test_a_range_of_services_is_read() -> None:
    raw = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00:96::/108"]}}
    record = read(Kind.SERVICE_CIDR, raw)
    assert record.ref == Ref("", "kubernetes")
    assert list(map(str, record.networks)) == ["10.96.0.0/12", "fd00:96::/108"]


def test_the_zones_and_nodes_that_an_endpoint_is_for_are_read() -> None:
    endpoint = {
        "addresses": ["10.244.0.5"],
        "zone": "a",
        "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n1"}]},
    }
    found = read(Kind.SLICE, with_field(SLICE, [endpoint], "endpoints")).endpoints[0]
    assert (found.zone, found.for_zones, found.for_nodes) == ("a", ("a", "b"), ("n1",))
