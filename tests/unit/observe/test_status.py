"""`weft status` and `weft dump`: what is wrong is found, named and counted."""

import asyncio
from collections.abc import Mapping
from ipaddress import ip_network

from tests.unit.observe import small_node
from tests.unit.observe.small_node import SERVER_IP, SmallNode, running
from weft.bpf.layout import TABLES, Reason, pack_address
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.model.objects import Broken, Kind, Node, Protocol, Ref, Service, ServicePort
from weft.proxy.observe.counters import MEANINGS
from weft.proxy.observe.status import NodeReport
from weft.proxy.observe.tables import compare_tables, key_text
from weft.proxy.watch.events import Refused


async def failed(node: SmallNode) -> Mapping[str, str]:
    status = await NodeReport(node.view, dict, dict).status()
    assert status.healthy is all(check.passed for check in status.checks)
    return {check.name: check.message for check in status.checks if not check.passed}


async def compared(node: SmallNode, **request: object) -> list[pb.TableRow]:
    asked = pb.CompareTablesRequest(**request)  # type: ignore[arg-type]
    return [row async for row in compare_tables(node.view, asked)]


def test_a_node_in_order_passes_every_check() -> None:
    async def story() -> None:
        async with running() as node:
            assert await failed(node) == {}
            status = await NodeReport(node.view, dict, dict).status()
            uses = {use.name: use.rows for use in status.tables}
            assert (status.node, status.mode, status.stage) == ("n1", "auto", "listed")
            assert (uses["frontends"], uses["slots"]) == (2, 1)

    asyncio.run(story())


def test_a_node_that_is_reached_nowhere_is_a_warning() -> None:
    async def story() -> None:
        async with running() as node:
            lost = Node(Ref("", "n2"), (), (ip_network("10.244.2.0/24"),))
            await node.moved(Kind.NODE, lost.ref, lost)
            status = await NodeReport(node.view, dict, dict).status()
            (check,) = [check for check in status.checks if check.name == "reach"]
            assert check.passed
            assert "n2 has no InternalIP" in check.message

    asyncio.run(story())


def test_a_source_that_has_not_listed_is_named() -> None:
    async def story() -> None:
        messages = await failed(SmallNode())
        assert "policy" in messages["sources"]

    asyncio.run(story())


def test_a_source_that_cannot_be_read_any_more_is_named_with_the_reason() -> None:
    async def story() -> None:
        async with running() as node:
            report = NodeReport(node.view, lambda: {"watch of pod": "connection refused"}, dict)
            status = await report.status()
            (check,) = [check for check in status.checks if not check.passed]
            assert check.name == "sources"
            assert "watch of pod: connection refused" in check.message

    asyncio.run(story())


def test_a_key_that_could_not_be_planned_is_named() -> None:
    async def story() -> None:
        async with running() as node:
            node.loop.planning.failed.add(("services", Ref("default", "odd")))
            assert "services default/odd" in (await failed(node))["plan"]

    asyncio.run(story())


def test_rows_that_the_kernel_refused_are_shown_with_the_reason() -> None:
    async def story() -> None:
        async with running(entries={"frontends": 2}) as node:
            ref = Ref("default", "second")
            port = ServicePort("", Protocol.TCP, 81)
            record = Service(ref, "ClusterIP", (small_node.VIP + 1,), (port,))
            await node.moved(Kind.SERVICE, ref, record)
            messages = await failed(node)
            assert messages.keys() == {"rows", "tables"}
            assert "frontends addr=10.96.0.11" in messages["rows"]
            assert "4 of 2 rows" in messages["tables"]
            status = await NodeReport(node.view, dict, dict).status()
            assert {row.table for row in status.unfinished} == {"frontends"}

    asyncio.run(story())


def test_an_object_that_was_not_understood_is_named_with_the_reason() -> None:
    async def story() -> None:
        async with running() as node:
            broken = Broken(Kind.SERVICE, Ref("default", "odd"), "port 0 is none")
            await node.loop.submit(Refused(broken))
            assert "service default/odd: port 0 is none" in (await failed(node))["objects"]

    asyncio.run(story())


def test_an_own_node_that_was_deleted_is_said() -> None:
    async def story() -> None:
        async with running() as node:
            await node.moved(Kind.NODE, Ref("", "n1"), None)
            assert "the Node object was deleted" in (await failed(node))["node"]

    asyncio.run(story())


def test_a_node_in_order_has_nothing_to_dump() -> None:
    async def story() -> None:
        async with running() as node:
            assert await compared(node) == []

    asyncio.run(story())


def test_rows_missing_unwanted_and_different_are_told_apart() -> None:
    async def story() -> None:
        async with running() as node:
            workloads = node.tables["workloads"]
            workloads.delete([pack_address(SERVER_IP)])
            stray = pack_address(SERVER_IP + 90)
            workloads.update({stray: bytes(TABLES["workloads"].value_size)})
            settings = node.tables["settings"]
            settings.update({bytes(4): b"\xff" * TABLES["settings"].value_size})
            found = {(row.table, row.difference): row for row in await compared(node)}
            missing = found["workloads", pb.TableRow.MISSING]
            assert missing.key == str(SERVER_IP)
            assert "ifindex=10" in missing.desired
            assert found["workloads", pb.TableRow.UNWANTED].key == str(SERVER_IP + 90)
            assert ("settings", pb.TableRow.DIFFERENT) in found
            assert {r.table for r in await compared(node, tables=["settings"])} == {"settings"}

    asyncio.run(story())


def test_all_rows_shows_the_equal_ones_too() -> None:
    async def story() -> None:
        async with running() as node:
            rows = await compared(node, all_rows=True, tables=["prefixes"])
            assert {row.difference for row in rows} == {pb.TableRow.EQUAL}
            assert {"10.244.1.0/24", "10.244.2.0/24", "::/0"} <= {row.key for row in rows}

    asyncio.run(story())


def test_every_tables_keys_can_be_shown() -> None:
    for name, spec in TABLES.items():
        assert spec.key_size == 0 or key_text(name, bytes(spec.key_size))


def test_every_reason_has_a_meaning() -> None:
    assert MEANINGS.keys() == set(Reason)
