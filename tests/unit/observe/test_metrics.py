"""/metrics: kube-proxy's names as they are, our own in base units, nothing that names a pod."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import replace

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.observe import small_node
from tests.unit.observe.small_node import SmallNode, running
from weft.bpf.layout import DIRECTION_COUNT, Counter, Direction, Reason, pack_u32
from weft.proxy.apply.sweep import Swept
from weft.proxy.model.objects import Kind, Protocol, Ref, Service, ServicePort
from weft.proxy.observe.health import Health
from weft.proxy.observe.metrics import Metrics
from weft.proxy.watch.events import Moved

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]

# kubernetes pkg/proxy/metrics/metrics.go, RegisterMetrics: what every mode has and Weft does.
KUBE_PROXY = {
    "kubeproxy_sync_proxy_rules_duration_seconds",
    "kubeproxy_sync_full_proxy_rules_duration_seconds",
    "kubeproxy_sync_partial_proxy_rules_duration_seconds",
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
    "kubeproxy_network_programming_duration_seconds",
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    "kubeproxy_sync_proxy_rules_endpoint_changes",
    "kubeproxy_sync_proxy_rules_service_changes_pending",
    "kubeproxy_sync_proxy_rules_service_changes",
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    "kubeproxy_sync_proxy_rules_nftables_sync_failures",
    "kubeproxy_sync_proxy_rules_nftables_cleanup_failures",
    "kubeproxy_proxy_healthz",
    "kubeproxy_proxy_livez",
    "kubeproxy_conntrack_reconciler_sync_duration_seconds",
    "kubeproxy_conntrack_reconciler_deleted_entries",
}


def measured(node: SmallNode) -> Metrics:
    return Metrics(node.view, Health(node.view), dict)


async def scraped(metrics: Metrics) -> Samples:
    return parsed((await metrics.scrape()).body)


def read(metrics: Metrics) -> Samples:
    """What a scrape at this instant says, the loop's turns standing still."""
    return parsed(generate_latest(metrics.registry))


def parsed(text: bytes) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def changed_slice(node: SmallNode, triggered_ns: int) -> None:
    record = replace(small_node.endpoint_slice(), triggered_ns=triggered_ns)
    await node.moved(Kind.SLICE, record.ref, record)


def test_the_conntrack_reconcilers_figures_are_the_sweeps() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            metrics.swept(Swept(0.25, {"IPv4": 7, "IPv6": 0}))
            samples, name = read(metrics), "kubeproxy_conntrack_reconciler"
            for family, deleted in (("IPv4", 7), ("IPv6", 0)):
                labels = {"ip_family": family}
                assert value(samples, f"{name}_deleted_entries_total", **labels) == deleted
                assert value(samples, f"{name}_sync_duration_seconds_sum", **labels) == 0.25

    asyncio.run(story())


def test_kube_proxys_names_are_all_there() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            answer = await metrics.scrape()
            families = {f.name for f in text_string_to_metric_families(answer.body.decode())}
            assert families >= KUBE_PROXY

    asyncio.run(story())


def test_a_turn_that_changes_services_is_a_sync_of_the_nodes_family() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            await changed_slice(node, triggered_ns=1)
            samples = await scraped(metrics)
            sync = "kubeproxy_sync_proxy_rules_duration_seconds"
            assert value(samples, f"{sync}_count", ip_family="IPv4") == 1
            assert (
                f"{sync}_bucket",
                frozenset({("ip_family", "IPv4"), ("le", "16.384")}),
            ) in samples
            assert value(samples, "kubeproxy_sync_proxy_rules_endpoint_changes_total") == 1
            last = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
            assert abs(value(samples, last, ip_family="IPv4") - time.time()) < 60

    asyncio.run(story())


def test_a_turn_whose_rows_the_kernel_refuses_is_a_failed_sync() -> None:
    async def story() -> None:
        async with running(entries={"slots": 1}) as node:
            metrics = measured(node)
            failed = "kubeproxy_sync_proxy_rules_nftables_sync_failures_total"
            await changed_slice(node, triggered_ns=1)
            assert value(await scraped(metrics), failed, ip_family="IPv4") == 0
            both = small_node.endpoint_slice()
            ready = tuple(replace(one, ready=True, serving=True) for one in both.endpoints)
            await node.moved(Kind.SLICE, both.ref, replace(both, endpoints=ready))
            samples = await scraped(metrics)
            assert value(samples, failed, ip_family="IPv4") >= 1
            cleanup = failed.replace("sync_failures", "cleanup_failures")
            assert value(samples, cleanup, ip_family="IPv4") == 0

    asyncio.run(story())


def test_programming_latency_counts_changes_since_the_start_only() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            name = "kubeproxy_network_programming_duration_seconds_count"
            await changed_slice(node, triggered_ns=1_000_000_000)
            assert (name, frozenset({("ip_family", "IPv4")})) not in await scraped(metrics)
            await changed_slice(node, triggered_ns=time.time_ns())
            assert value(await scraped(metrics), name, ip_family="IPv4") == 1

    asyncio.run(story())


def test_a_service_scaled_to_nothing_counts_for_the_family_that_it_had() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            record = replace(small_node.endpoint_slice(), endpoints=(), triggered_ns=time.time_ns())
            await node.moved(Kind.SLICE, record.ref, record)
            await node.moved(Kind.SLICE, record.ref, None)
            name = "kubeproxy_network_programming_duration_seconds_count"
            assert value(await scraped(metrics), name, ip_family="IPv4") == 1

    asyncio.run(story())


def test_buckets_are_kube_proxys() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            await changed_slice(node, triggered_ns=time.time_ns())
            samples = await scraped(metrics)
            programming = buckets(samples, "kubeproxy_network_programming_duration_seconds")
            assert programming[:4] == [0.25, 0.5, 1, 2]
            assert programming[58:65] == [57, 58, 59, 60, 65, 70, 75]
            assert programming[70:] == [105, 110, 115, 120, 150, 180, 210, 240, 270, 300, math.inf]
            for part in ("", "partial_"):
                sync = buckets(samples, f"kubeproxy_sync_{part}proxy_rules_duration_seconds")
                assert sync == [*(0.001 * 2**n for n in range(15)), math.inf]

    asyncio.run(story())


def buckets(samples: Samples, name: str) -> list[float]:
    bounds = (dict(labels)["le"] for found, labels in samples if found == f"{name}_bucket")
    return sorted(map(float, bounds))


def test_a_sync_that_waits_shows_in_when_it_was_queued() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            await changed_slice(node, triggered_ns=1)
            last = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
            queued = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds"
            done = read(metrics)
            assert value(done, queued, ip_family="IPv4") <= value(done, last, ip_family="IPv4")
            node.loop.post(Moved(Kind.SLICE, small_node.endpoint_slice().ref, None))
            waits = read(metrics)
            assert value(waits, queued, ip_family="IPv4") > value(waits, last, ip_family="IPv4")
            assert value(waits, "kubeproxy_sync_proxy_rules_endpoint_changes_pending") == 1

    asyncio.run(story())


def test_services_whose_clients_are_dropped_for_want_of_a_local_endpoint_are_counted() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
            record = replace(
                small_node.service(), type="NodePort", internal_local=True, external_local=True,
                ports=(ServicePort("http", Protocol.TCP, 80, 30080),),
            )  # fmt: skip
            await node.moved(Kind.SERVICE, record.ref, record)
            for here, internal, external in ((True, 0, 0), (False, 1, 1)):
                piece = small_node.endpoint_slice()
                said = replace(piece.endpoints[0], node="n1" if here else "n2")
                await node.moved(Kind.SLICE, piece.ref, replace(piece, endpoints=(said,)))
                samples = await scraped(metrics)
                for policy, number in (("internal", internal), ("external", external)):
                    labels = {"traffic_policy": policy, "ip_family": "IPv4"}
                    assert value(samples, name, **labels) == number

    asyncio.run(story())


def test_drops_and_what_went_on_are_read_from_the_kernel_by_reason_and_direction() -> None:
    async def story() -> None:
        async with running() as node:
            for reason, count in ((Reason.POLICY_INGRESS, 3), (Reason.DELIVERED, 9)):
                key = pack_u32(reason * DIRECTION_COUNT + Direction.TO_POD)
                cpus = Counter(count, 100).pack() + Counter(1, 60).pack()
                node.tables["counters"]._rows[key] = (key, cpus)
            samples = await scraped(measured(node))
            dropped = {"reason": "policy-ingress", "direction": "to-pod"}
            assert value(samples, "weft_dropped_packets_total", **dropped) == 4
            assert value(samples, "weft_dropped_bytes_total", **dropped) == 160
            delivered = {"reason": "delivered", "direction": "to-pod"}
            assert value(samples, "weft_forwarded_packets_total", **delivered) == 10

    asyncio.run(story())


def test_a_full_table_shows_in_its_fill_and_its_errors() -> None:
    async def story() -> None:
        async with running(entries={"frontends": 2}) as node:
            metrics = measured(node)
            ref = Ref("default", "second")
            port = ServicePort("", Protocol.TCP, 81)
            record = Service(ref, "ClusterIP", (small_node.VIP + 1,), (port,))
            await node.moved(Kind.SERVICE, ref, record)
            samples = await scraped(metrics)
            assert value(samples, "weft_table_fill_ratio", table="frontends") == 2.0
            assert value(samples, "weft_row_errors", table="frontends") == 2
            assert value(samples, "weft_row_errors", table="slots") == 0

    asyncio.run(story())


def test_flows_that_the_kernel_holds_are_counted_against_their_table() -> None:
    async def story() -> None:
        async with running(entries={"flows": 4}) as node:
            spec = node.tables["flows"].spec
            node.tables["flows"].update({bytes(spec.key_size): bytes(spec.value_size)})
            samples = await scraped(measured(node))
            assert value(samples, "weft_table_rows", table="flows") == 1
            assert value(samples, "weft_table_fill_ratio", table="flows") == 0.25

    asyncio.run(story())


def test_cni_requests_are_counted_by_verb_and_code() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            metrics.cni("ADD", 0, 0.004)
            samples = await scraped(metrics)
            name = "weft_cni_request_duration_seconds"
            assert value(samples, f"{name}_count", verb="ADD", code="0") == 1
            assert value(samples, f"{name}_bucket", verb="ADD", code="0", le="0.005") == 1

    asyncio.run(story())


def test_no_label_names_a_pod_or_an_address() -> None:
    async def story() -> None:
        async with running() as node:
            metrics = measured(node)
            await changed_slice(node, triggered_ns=time.time_ns())
            allowed = {
                "le", "ip_family", "reason", "direction", "table", "kind", "verb", "code",
                "version", "traffic_policy",
            }  # fmt: skip
            assert {k for _, labels in await scraped(metrics) for k, _ in labels} <= allowed

    asyncio.run(story())
