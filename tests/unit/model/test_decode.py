"""What the API's JSON becomes: records for what is understood, Broken for what is not."""

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
import yaml

from tests.unit.model.objects_json import (
    NODE,
    POD,
    SERVICE,
    SLICE,
    listed,
    watched,
    with_field,
    without_field,
)
from weft.proxy.model.decode import (
    EventType,
    Status,
    decode,
    decode_event,
    decode_list,
    decode_manifest,
    manifests_in,
)
from weft.proxy.model.objects import (
    Broken,
    EndpointSlice,
    Kind,
    Namespace,
    Need,
    Node,
    Pod,
    Protocol,
    Ref,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)


def read(kind: Kind, manifest: object) -> Any:
    return decode(kind, msgspec.json.encode(manifest))


# --- Services -----------------------------------------------------------------------------------
def test_a_service_of_two_families_is_read() -> None:
    assert read(Kind.SERVICE, SERVICE) == Service(
        Ref("kube-system", "kube-dns"),
        "ClusterIP",
        (ip_address("10.96.0.10"), ip_address("fd00:96::a")),
        (ServicePort("dns", Protocol.UDP, 53), ServicePort("dns-tcp", Protocol.TCP, 53)),
        created_ns=1_700_000_000_000_000_000,
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"clusterIP": "None", "clusterIPs": ["None"]}, ()),
        ({"clusterIP": ""}, ()),
        ({"clusterIP": "10.96.0.1", "type": "ExternalName"}, ()),
        ({"clusterIP": "10.96.0.1"}, ("10.96.0.1",)),
        ({"clusterIP": "010.096.0.01"}, ("10.96.0.1",)),
        ({"clusterIP": "fd00::1", "ipFamilies": ["IPv6"]}, ("fd00::1",)),
        (
            {
                "clusterIP": "10.0.0.1",
                "clusterIPs": ["10.0.0.1", "fd00::1"],
                "ipFamilies": ["IPv4"],
            },
            ("10.0.0.1",),
        ),
    ],
)
def test_cluster_ips_are_one_per_family_named(
    spec: dict[str, object], expected: tuple[str, ...]
) -> None:
    service = read(Kind.SERVICE, {"metadata": {"name": "a", "namespace": "b"}, "spec": spec})
    assert service.cluster_ips == tuple(map(ip_address, expected))


def test_a_service_of_another_proxy_is_not_ours_whatever_the_label_says() -> None:
    labels = {"service.kubernetes.io/service-proxy-name": ""}
    assert read(Kind.SERVICE, SERVICE).proxied
    assert not read(Kind.SERVICE, with_field(SERVICE, labels, "metadata", "labels")).proxied


# --- Slices -------------------------------------------------------------------------------------
def test_a_slice_is_read_with_its_trigger_time() -> None:
    assert read(Kind.SLICE, SLICE) == EndpointSlice(
        Ref("kube-system", "kube-dns-x7"),
        "kube-dns",
        (SlicePort("dns", Protocol.UDP, 53), SlicePort("dns-tcp", Protocol.TCP, 53)),
        (
            SliceEndpoint(
                ip_address("10.244.0.5"), True, True, False, "node-1",
                Ref("kube-system", "coredns-5"), "a",
            ),
            SliceEndpoint(ip_address("10.244.0.6"), False, True, True, "", None),
        ),
        triggered_ns=1_700_000_000_123_456_000,
    )  # fmt: skip


@pytest.mark.parametrize("field", ["endpoints", "ports"])
def test_go_writes_an_empty_list_as_null(field: str) -> None:
    for manifest in (with_field(SLICE, None, field), without_field(SLICE, field)):
        record = read(Kind.SLICE, manifest)
        assert getattr(record, field) == ()


def test_slices_of_names_and_of_headless_services_belong_to_nobody() -> None:
    labels = {**SLICE["metadata"]["labels"], "service.kubernetes.io/headless": ""}
    assert read(Kind.SLICE, with_field(SLICE, labels, "metadata", "labels")).service == ""
    names = with_field(SLICE, [{"addresses": ["dns.example"]}], "endpoints")
    record = read(Kind.SLICE, with_field(names, "FQDN", "addressType"))
    assert (record.service, record.endpoints) == ("", ())


def test_a_target_that_is_no_pod_is_not_named() -> None:
    target = {"kind": "Node", "name": "n"}
    endpoints = [{"addresses": ["10.0.0.1"], "targetRef": target}]
    assert read(Kind.SLICE, with_field(SLICE, endpoints, "endpoints")).endpoints[0].target is None


# --- Pods, namespaces, nodes --------------------------------------------------------------------
def test_a_running_pod_owns_its_addresses_and_names_its_ports() -> None:
    assert read(Kind.POD, POD) == Pod(
        ref=Ref("shop", "web-1"),
        uid="5d1f",
        node="node-1",
        labels={"app": "web"},
        addresses=(ip_address("10.244.1.5"), ip_address("fd00:1::5")),
        host_network=False,
        finished=False,
        named_ports=(
            ServicePort("http", Protocol.TCP, 8080),
            ServicePort("http", Protocol.UDP, 8081),
            ServicePort("proxy", Protocol.TCP, 15001),
        ),
    )


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_completed_pod_owns_no_address(phase: str) -> None:
    pod = read(Kind.POD, with_field(POD, phase, "status", "phase"))
    assert (pod.finished, pod.addresses) == (True, ())


def test_the_address_of_a_pod_on_the_host_network_is_its_nodes() -> None:
    pod = read(Kind.POD, with_field(POD, True, "spec", "hostNetwork"))
    assert (pod.host_network, pod.addresses) == (True, ())


def test_a_pod_may_have_no_address_yet_or_only_the_old_field() -> None:
    assert read(Kind.POD, without_field(POD, "status")).addresses == ()
    old = with_field(POD, {"podIP": "10.0.0.7"}, "status")
    assert read(Kind.POD, old).addresses == (ip_address("10.0.0.7"),)


@pytest.mark.parametrize(
    ("annotations", "needs"),
    [
        ({"weft.dev/socket-hook": "off"}, (Need.NO_SOCKET_HOOK,)),
        ({"weft.dev/socket-hook": "on", "weft.dev/redirect": "on"}, ()),
        ({"weft.dev/redirect": "off"}, (Need.NO_REDIRECT,)),
        ({"sidecar.istio.io/status": "{}"}, (Need.MESH,)),
        ({"ambient.istio.io/redirection": "enabled"}, (Need.MESH,)),
        ({"ambient.istio.io/redirection": "disabled"}, ()),
        ({"linkerd.io/proxy-version": "edge-1"}, (Need.MESH,)),
        ({"kubernetes.io/ingress-bandwidth": "1M"}, (Need.SHAPED,)),
        (
            {"kubernetes.io/egress-bandwidth": "1M", "weft.dev/redirect": "off"},
            (Need.NO_REDIRECT, Need.SHAPED),
        ),
    ],
)
def test_a_pods_annotations_say_what_it_needs(
    annotations: dict[str, str], needs: tuple[Need, ...]
) -> None:
    pod = with_field(POD, annotations | {"other": "x"}, "metadata", "annotations")
    assert read(Kind.POD, pod).needs == needs


def test_a_namespace_always_carries_its_name_as_a_label() -> None:
    assert read(Kind.NAMESPACE, {"metadata": {"name": "shop", "labels": {"team": "x"}}}) == (
        Namespace(Ref("", "shop"), {"team": "x", "kubernetes.io/metadata.name": "shop"})
    )


def test_a_node_has_its_internal_ips_in_order_and_its_pod_cidrs() -> None:
    assert read(Kind.NODE, NODE) == Node(
        Ref("", "node-1"),
        (ip_address("2001:db8::1"), ip_address("192.0.2.1")),
        (ip_network("10.244.1.0/24"), ip_network("fd00:1::/64")),
        {"zone": "a"},
    )


def test_a_node_may_have_one_pod_cidr_or_none() -> None:
    one = read(Kind.NODE, with_field(NODE, {"podCIDR": "10.244.1.0/24"}, "spec"))
    assert one.pod_cidrs == (ip_network("10.244.1.0/24"),)
    assert read(Kind.NODE, with_field(NODE, {}, "spec")).pod_cidrs == ()


# --- What is not understood ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "manifest", "why"),
    [
        (Kind.SERVICE, with_field(SERVICE, ["10.96.0"], "spec", "clusterIPs"), "10.96.0"),
        (Kind.SERVICE, with_field(SERVICE, [{"port": 0}], "spec", "ports"), "1-65535"),
        (
            Kind.SERVICE,
            with_field(SERVICE, [{"port": 1, "protocol": "X"}], "spec", "ports"),
            "'X'",
        ),
        (Kind.SLICE, with_field(SLICE, [{"addresses": ["a.b"]}], "endpoints"), "a.b"),
        (Kind.POD, with_field(POD, {"podIP": "fe80::1%eth0"}, "status"), "zone"),
        (Kind.NODE, with_field(NODE, {"podCIDR": "10.0.0.0"}, "spec"), "10.0.0.0"),
        (Kind.NODE, with_field(NODE, 7, "spec"), "$.spec"),
    ],
)
def test_an_object_that_is_not_understood_is_named_with_the_reason(
    kind: Kind, manifest: dict[str, Any], why: str
) -> None:
    broken = read(kind, manifest)
    assert isinstance(broken, Broken)
    assert broken.ref.name == manifest["metadata"]["name"]
    assert why in broken.why


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"metadata":{"name":""},"spec":{}}'])
def test_what_has_no_name_is_broken_without_one(data: bytes) -> None:
    broken = decode(Kind.SERVICE, data)
    assert isinstance(broken, Broken)
    assert broken.ref == Ref("", "")


# --- Lists and watches --------------------------------------------------------------------------
def test_a_broken_item_of_a_list_costs_only_itself() -> None:
    items = [SERVICE, with_field(SERVICE, 5, "spec"), SERVICE]
    page = decode_list(Kind.SERVICE, listed(items, "42", "next"))
    assert (page.resource_version, page.next_page) == ("42", "next")
    assert [isinstance(record, Broken) for record in page.records] == [False, True, False]


def test_an_empty_list_may_have_null_items() -> None:
    page = decode_list(Kind.POD, b'{"metadata":{"resourceVersion":"1"},"items":null}')
    assert page == ("1", "", [])


def test_what_is_no_list_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_list(Kind.POD, b'{"kind":"Status","code":403}')


@pytest.mark.parametrize("said", ["ADDED", "MODIFIED", "DELETED"])
def test_an_event_carries_its_record_and_where_to_go_on(said: str) -> None:
    event = decode_event(Kind.POD, watched(said, POD))
    assert event == (EventType(said), read(Kind.POD, POD), "1234")


def test_an_event_of_a_broken_object_still_says_where_to_go_on() -> None:
    event = decode_event(Kind.POD, watched("MODIFIED", with_field(POD, 1, "spec")))
    assert isinstance(event.object, Broken)
    assert event.resource_version == "1234"


def test_a_bookmark_has_only_its_version() -> None:
    empty = {"kind": "Pod", "metadata": {"resourceVersion": "99", "creationTimestamp": None}}
    assert decode_event(Kind.POD, watched("BOOKMARK", empty)) == (EventType.BOOKMARK, None, "99")


def test_an_error_event_gives_code_and_words() -> None:
    status = {"kind": "Status", "status": "Failure", "code": 410, "message": "too old"}
    event = decode_event(Kind.POD, watched("ERROR", status))
    assert event == (EventType.ERROR, Status(410, "too old"), "")


@pytest.mark.parametrize("line", [b"", b"{}", b'{"type":"NEWS","object":{}}'])
def test_a_line_that_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError)):
        decode_event(Kind.POD, line)


# --- Manifests ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "head", "manifest"),
    [
        (Kind.SERVICE, ("v1", "Service"), SERVICE),
        (Kind.SLICE, ("discovery.k8s.io/v1", "EndpointSlice"), SLICE),
        (Kind.POD, ("v1", "Pod"), POD),
        (Kind.NODE, ("v1", "Node"), NODE),
    ],
)
def test_a_manifest_says_the_same_as_the_api(
    kind: Kind, head: tuple[str, str], manifest: dict[str, Any]
) -> None:
    said = {"apiVersion": head[0], "kind": head[1], **manifest}
    text = yaml.safe_load(yaml.safe_dump(said))
    assert decode_manifest(text) == (kind, read(kind, manifest))


def test_a_manifest_without_a_namespace_is_in_default() -> None:
    found = decode_manifest({"apiVersion": "v1", "kind": "Service",
                             "metadata": {"name": "a"}, "spec": {}})  # fmt: skip
    assert isinstance(found, tuple)
    assert found[1].ref == Ref("default", "a")  # type: ignore[union-attr]


def test_kinds_that_weft_does_not_read_are_passed_over() -> None:
    assert decode_manifest({"apiVersion": "apps/v1", "kind": "Deployment"}) is None
    assert decode_manifest({"apiVersion": "serving.example/v1", "kind": "Service"}) is None


def test_a_broken_manifest_is_named() -> None:
    found = decode_manifest({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})
    assert isinstance(found, Broken)
    assert found.ref == Ref("default", "p")


def test_a_dump_by_kubectl_holds_its_items() -> None:
    pod = {"kind": "Pod"}
    assert list(manifests_in({"kind": "List", "items": [pod, {"kind": "List", "items": []}]})) == [
        pod
    ]
    assert list(manifests_in(pod)) == [pod]
    assert list(manifests_in(None)) == []
