"""What exposes a Service, whose clients an endpoint is for, and where ClusterIPs come from."""

from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from tests.unit.model.objects_json import SLICE, with_field
from weft.proxy.model.decode import decode
from weft.proxy.model.decode_records import NOBODY
from weft.proxy.model.objects import Kind, Protocol, Ref, Service, ServicePort
from weft.proxy.plan.services import ranges


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


def test_one_bad_externalip_or_status_address_costs_itself_alone() -> None:
    """As in kube-proxy, which logs it and goes on."""
    service = exposed(externalIPs=["198.51.100.7", "198.51.100.700"])
    assert service.external_ips == (ip_address("198.51.100.7"),)
    assert "externalIPs: '198.51.100.700'" in service.broken
    raw = {
        "metadata": {"name": "a", "namespace": "b"},
        "spec": EXPOSED,
        "status": {"loadBalancer": {"ingress": [{"ip": "nowhere"}, {"ip": "203.0.113.9"}]}},
    }
    service = read(Kind.SERVICE, raw)
    assert service.load_balancer_ips == (ip_address("203.0.113.9"),)
    assert "status.loadBalancer: 'nowhere'" in service.broken


def test_a_bad_source_range_admits_nobody() -> None:
    service = exposed(loadBalancerSourceRanges=["192.0.2.0/24", "192.0.2.0/33"])
    assert "loadBalancerSourceRanges" in service.broken
    assert [str(n) for n in ranges(service, 4)] == ["192.0.2.0/24", "255.255.255.255/32"]
    alone = exposed(loadBalancerSourceRanges=["everybody"])
    assert [ranges(alone, version) for version in (4, 6)] == [(NOBODY[0],), (NOBODY[1],)]


def test_a_service_without_fault_says_nothing() -> None:
    assert exposed().broken == ""


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
