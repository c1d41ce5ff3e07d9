"""Listings: what the kernel holds, in the names of the API, with a status per row."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TypeVar

from tests.unit.observe import small_node
from tests.unit.observe.small_node import SERVER_IP, VIP, WEB, running
from weft.bpf.layout import Frontend, FrontendKey, pack_address
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.model.objects import Kind, Link, Node, Protocol, Ref, Service, ServicePort
from weft.proxy.observe.nodes import list_nodes
from weft.proxy.observe.policies import list_policies
from weft.proxy.observe.services import list_endpoints, list_services
from weft.proxy.observe.workloads import list_workloads

T = TypeVar("T")
EVERYTHING = pb.ListRequest()
WEB_KEY = FrontendKey(VIP, 80, 6).pack()
PENDING, DONE, ERROR = pb.RowStatus.PENDING, pb.RowStatus.DONE, pb.RowStatus.ERROR


async def gathered(messages: AsyncIterator[T]) -> list[T]:
    return [message async for message in messages]


def test_a_service_shows_how_many_endpoints_the_kernel_has_for_it() -> None:
    async def story() -> None:
        async with running() as node:
            (service,) = await gathered(list_services(node.view, EVERYTHING))
            assert (service.namespace, service.name) == WEB
            (frontend,) = service.ports[0].frontends
            assert (frontend.address, frontend.port, frontend.endpoints) == (str(VIP), 80, 1)
            assert service.status.state == DONE

    asyncio.run(story())


def test_a_frontend_that_the_kernel_lost_is_pending_and_leads_nowhere() -> None:
    async def story() -> None:
        async with running() as node:
            node.tables["frontends"].delete([WEB_KEY])
            (service,) = await gathered(list_services(node.view, EVERYTHING))
            assert service.ports[0].frontends[0].endpoints == 0
            assert service.status.state == PENDING
            assert "frontends is not in the kernel" in service.status.reason

    asyncio.run(story())


def test_the_count_is_the_kernels_even_where_the_plan_says_otherwise() -> None:
    async def story() -> None:
        async with running() as node:
            actual = node.tables["frontends"].lookup(WEB_KEY)
            assert actual is not None
            wrong = replace(Frontend.unpack(actual), backends=7).pack()
            node.tables["frontends"].update({WEB_KEY: wrong})
            (service,) = await gathered(list_services(node.view, EVERYTHING))
            assert service.ports[0].frontends[0].endpoints == 7
            assert "differs" in service.status.reason

    asyncio.run(story())


def test_a_row_that_the_kernel_refused_is_an_error_with_its_reason_and_age() -> None:
    async def story() -> None:
        async with running(entries={"frontends": 2}) as node:
            second = Ref("default", "second")
            port = ServicePort("", Protocol.TCP, 81)
            record = Service(second, "ClusterIP", (VIP + 1,), (port,))
            await node.moved(Kind.SERVICE, second, record)
            asked = pb.ListRequest(namespace="default", name="second")
            (service,) = await gathered(list_services(node.view, asked))
            assert service.status.state == ERROR
            assert "full" in service.status.reason
            assert service.status.age_s >= 0
            (first,) = await gathered(list_services(node.view, pb.ListRequest(name="web")))
            assert first.status.state == DONE

    asyncio.run(story())


def test_every_address_is_listed_with_who_gets_what_there_or_why_it_is_not_served() -> None:
    async def story() -> None:
        async with running() as node:
            exposed = replace(
                small_node.service(),
                ports=(ServicePort("http", Protocol.TCP, 80, 30080),),
                external_ips=(ip_address("192.0.2.2"),),
                external_local=True,
            )
            await node.moved(Kind.SERVICE, WEB, exposed)
            away = replace(small_node.endpoint_slice().endpoints[0], node="n2")
            pieces = replace(small_node.endpoint_slice(), endpoints=(away,))
            await node.moved(Kind.SLICE, pieces.ref, pieces)
            (service,) = await gathered(list_services(node.view, EVERYTHING))
            (endpoint,) = await gathered(list_endpoints(node.view, EVERYTHING))
            said = {f.origin: f for f in service.ports[0].frontends}
            assert said.keys() == {"cluster-ip", "node-port", "external-ip"}
            assert said["node-port"].address == "192.0.2.1"
            assert said["external-ip"].not_served == "an address of node n2"
            assert (said["cluster-ip"].endpoints, said["cluster-ip"].outside_endpoints) == (1, 1)
            assert (said["node-port"].endpoints, said["node-port"].outside_endpoints) == (1, 0)
            assert (endpoint.chosen, endpoint.unused) == (True, "policy Local: not on this node")
            assert endpoint.status.state == service.status.state == DONE

    asyncio.run(story())


def test_a_headless_service_has_no_frontends_and_nothing_to_be_late_with() -> None:
    async def story() -> None:
        async with running() as node:
            headless = Service(WEB, "ClusterIP", (), (ServicePort("http", Protocol.TCP, 80),))
            await node.moved(Kind.SERVICE, WEB, headless)
            (service,) = await gathered(list_services(node.view, EVERYTHING))
            endpoints = await gathered(list_endpoints(node.view, EVERYTHING))
            assert not service.ports[0].frontends
            assert service.status.state == DONE
            assert {e.status.state for e in endpoints} == {DONE}

    asyncio.run(story())


def test_an_endpoint_says_whether_new_flows_go_to_it_and_whose_it_is() -> None:
    async def story() -> None:
        async with running() as node:
            endpoints = await gathered(list_endpoints(node.view, EVERYTHING))
            by_pod = {endpoint.pod: endpoint for endpoint in endpoints}
            assert by_pod.keys() == {"default/server", "default/far"}
            assert by_pod["default/server"].chosen
            assert not by_pod["default/far"].chosen
            assert by_pod["default/far"].node == "n2"
            assert {endpoint.status.state for endpoint in endpoints} == {DONE}

    asyncio.run(story())


def test_a_ready_endpoint_without_a_slot_in_the_kernel_is_pending() -> None:
    async def story() -> None:
        async with running() as node:
            slots = node.tables["slots"]
            slots.delete([key for key, _ in slots.items()])
            endpoints = await gathered(list_endpoints(node.view, EVERYTHING))
            server = next(e for e in endpoints if e.pod == "default/server")
            assert not server.chosen
            assert server.status.state == PENDING

    asyncio.run(story())


def test_a_workload_names_the_policies_that_the_kernel_judges_it_by() -> None:
    async def story() -> None:
        async with running() as node:
            found = await gathered(list_workloads(node.view, EVERYTHING))
            client, server = found
            assert server.ingress.isolated
            assert list(server.ingress.policies) == ["default/only-client"]
            assert not server.egress.isolated
            assert not client.ingress.isolated
            assert server.addresses == [str(SERVER_IP)]

    asyncio.run(story())


def test_a_workload_without_its_row_is_pending() -> None:
    async def story() -> None:
        async with running() as node:
            node.tables["workloads"].delete([pack_address(SERVER_IP)])
            asked = pb.ListRequest(namespace="default", name="server")
            (server,) = await gathered(list_workloads(node.view, asked))
            assert server.status.state == PENDING

    asyncio.run(story())


def test_a_policy_lists_the_local_pods_that_it_judges() -> None:
    async def story() -> None:
        async with running() as node:
            (policy,) = await gathered(list_policies(node.view, EVERYTHING))
            assert list(policy.workloads) == ["default/server"]
            assert (policy.ingress, policy.egress, policy.broken) == (True, False, "")
            assert policy.status.state == DONE

    asyncio.run(story())


def test_a_policy_that_was_not_understood_says_what_allows_nothing() -> None:
    async def story() -> None:
        async with running() as node:
            record = small_node.policy()
            broken = type(record)(
                record.ref, record.pods, True, False, (), (), "ingress[0]: cidr 'x' is no prefix"
            )
            await node.moved(Kind.POLICY, record.ref, broken)
            (policy,) = await gathered(list_policies(node.view, EVERYTHING))
            assert policy.broken == "ingress[0]: cidr 'x' is no prefix"

    asyncio.run(story())


def test_a_node_shows_where_the_kernel_tunnels_to() -> None:
    async def story() -> None:
        async with running() as node:
            own, other = await gathered(list_nodes(node.view, EVERYTHING))
            assert own.own
            assert (own.pod_ranges[0].way, own.pod_ranges[0].via) == ("here", "")
            assert (other.pod_ranges[0].way, other.pod_ranges[0].via) == ("tunnel", "192.0.2.2")
            assert {own.status.state, other.status.state} == {DONE}

    asyncio.run(story())


def test_a_node_on_the_same_network_shows_by_which_link() -> None:
    async def story() -> None:
        async with running() as node:
            networks = (ip_network("192.0.2.0/24"),)
            uplink = Link("eth0", 2, 1500, (ip_address("192.0.2.1"),), networks=networks)
            await node.moved(Kind.LINK, uplink.name, uplink)
            _, other = await gathered(list_nodes(node.view, EVERYTHING))
            way = other.pod_ranges[0]
            assert (way.way, way.via, way.link) == ("direct", "192.0.2.2", "eth0")

    asyncio.run(story())


def test_a_node_that_is_reached_nowhere_shows_why() -> None:
    async def story() -> None:
        async with running() as node:
            lost = Node(Ref("", "n2"), (), (ip_network("10.244.2.0/24"),))
            await node.moved(Kind.NODE, lost.ref, lost)
            _, other = await gathered(list_nodes(node.view, EVERYTHING))
            way = other.pod_ranges[0]
            assert (way.way, way.why) == ("nowhere", "n2 has no InternalIP")

    asyncio.run(story())


def test_a_request_narrows_by_namespace_and_name() -> None:
    async def story() -> None:
        async with running() as node:
            for asked, count in (
                (pb.ListRequest(namespace="default"), 1),
                (pb.ListRequest(namespace="elsewhere"), 0),
                (pb.ListRequest(name="web"), 1),
                (pb.ListRequest(namespace="default", name="nobody"), 0),
            ):
                assert len(await gathered(list_services(node.view, asked))) == count

    asyncio.run(story())
