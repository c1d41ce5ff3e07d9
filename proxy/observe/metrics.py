"""/metrics: kube-proxy's names (kubeproxy_metrics), and weft_* for what it does not know.

Counters of the datapath are read when scraped; nothing is counted twice. No label names a pod or an
address.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from weft.bpf.layout import TABLES
from weft.bpf.wire import TableKind
from weft.proxy.apply.sweep import Swept
from weft.proxy.loop import Turn, View
from weft.proxy.model.objects import Kind
from weft.proxy.observe.counters import counts
from weft.proxy.observe.health import Health
from weft.proxy.observe.kubeproxy_metrics import SYNC_BUCKETS, KubeProxyMetrics
from weft.proxy.observe.status import Troubles, weft_version
from weft.proxy.observe.tables import PLANNED
from weft.proxy.observe.web import Answer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LAG_PERIOD_S = 1.0
CENSUS_PERIOD_S = 60.0

_EVENT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_CNI_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Everything that the daemon measures of itself."""

    def __init__(self, view: View, health: Health, troubles: Troubles) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self._make_weft()
        KubeProxyMetrics(self.registry, view, health)
        self.registry.register(_AtScrape(view, troubles))
        ProcessCollector(registry=self.registry)
        view.watch_turns(self._turned)

    def _make_weft(self) -> None:
        registry = self.registry
        self._turn = Histogram(
            "weft_turn_duration_seconds", "One turn of the loop",
            buckets=SYNC_BUCKETS, registry=registry,
        )  # fmt: skip
        self._event = Histogram(
            "weft_event_duration_seconds", "From an event's arrival to its rows in the kernel",
            buckets=_EVENT_BUCKETS, registry=registry,
        )  # fmt: skip
        self._lag = Histogram(
            "weft_event_loop_lag_seconds", "How late asyncio wakes what sleeps",
            buckets=_EVENT_BUCKETS, registry=registry,
        )  # fmt: skip
        self._cni = Histogram(
            "weft_cni_request_duration_seconds", "CNI requests by verb and error code (0: success)",
            ("verb", "code"), buckets=_CNI_BUCKETS, registry=registry,
        )  # fmt: skip
        self.flow_events_lost = Counter(
            "weft_flow_events_lost", "Flow events that a client did not get", registry=registry
        )
        self.sockets_ended = Counter(
            "weft_sockets_ended", "The node's connected UDP sockets whose backend was gone",
            registry=registry,
        )  # fmt: skip
        self._swept = Histogram(
            "kubeproxy_conntrack_reconciler_sync_duration_seconds",
            "ReconcileConntrackFlowsLatency latency in seconds", ("ip_family",),
            buckets=SYNC_BUCKETS, registry=registry,
        )  # fmt: skip
        self._deleted = Counter(
            "kubeproxy_conntrack_reconciler_deleted_entries",
            "Cumulative conntrack flows deleted by conntrack reconciler", ("ip_family",),
            registry=registry,
        )  # fmt: skip
        info = Gauge("weft_build_info", "Constant 1", ("version",), registry=registry)
        info.labels(weft_version()).set(1)

    def cni(self, verb: str, code: int, duration_s: float) -> None:
        """One CNI request was answered; `code` 0 is success (CNI spec, error codes)."""
        self._cni.labels(verb, str(code)).observe(duration_s)

    def swept(self, swept: Swept) -> None:
        """One round through the tables of flows, which serves both families at once."""
        for family, count in swept.deleted.items():
            self._swept.labels(family).observe(swept.took_s)
            self._deleted.labels(family).inc(count)

    async def measure_lag(self) -> None:
        """Measure until cancelled how late a sleep of LAG_PERIOD_S ends."""
        while True:
            due_s = time.monotonic() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            self._lag.observe(max(0.0, time.monotonic() - due_s))

    async def scrape(self) -> Answer:
        """Everything in the text format; read off the event loop, since it walks tables."""
        text = await asyncio.to_thread(generate_latest, self.registry)
        return Answer(text, CONTENT_TYPE)

    def _turned(self, turn: Turn) -> None:
        self._turn.observe(turn.ended_s - turn.started_s)
        if turn.changes:
            self._event.observe(turn.ended_s - turn.queued_s)


class _AtScrape(Collector):
    """What is read when it is asked for. Runs on a thread of its own; reads only."""

    def __init__(self, view: View, troubles: Troubles) -> None:
        self._view, self._troubles = view, troubles
        self._counted: dict[str, int] = {}
        self._counted_at_s = -CENSUS_PERIOD_S

    def collect(self) -> Iterable[Metric]:
        yield from self._datapath()
        yield from self._rows()
        yield from self._troubled()

    def _datapath(self) -> Iterator[Metric]:
        labels = ("reason", "direction")
        families = {
            (drop, unit): CounterMetricFamily(
                f"weft_{'dropped' if drop else 'forwarded'}_{unit}",
                f"{unit.capitalize()} that programs {'dropped' if drop else 'let go on'}",
                labels=labels,
            )
            for drop in (False, True)
            for unit in ("packets", "bytes")
        }
        for count in counts(self._view.tables["counters"]):
            where = (count.reason, count.direction)
            families[count.is_drop, "packets"].add_metric(where, count.packets)
            families[count.is_drop, "bytes"].add_metric(where, count.bytes)
        yield from families.values()

    def _rows(self) -> Iterator[Metric]:
        view, names = self._view, sorted(PLANNED)
        rows = {name: view.row_count(name) for name in names} | self._census()
        sizes = {n: view.tables[n].max_entries for n in rows if n in view.tables}
        yield _gauge("weft_table_rows", "Rows wanted, or of flows and the like held", "table", rows)
        yield _gauge("weft_table_max_entries", "Rows that fit", "table", sizes)
        yield _gauge(
            "weft_table_fill_ratio", "Share of a table that its rows take", "table",
            {name: rows[name] / size for name, size in sizes.items() if size > 1},
        )  # fmt: skip
        errors = dict(view.errors())
        yield _gauge(
            "weft_row_errors", "Rows that the kernel refused", "table",
            {name: errors.get(name, 0) for name in names},
        )  # fmt: skip
        for name, text, by_table in (
            ("written", "Rows written", view.counts.written),
            ("deleted", "Rows deleted", view.counts.deleted),
            ("repaired", "Rows that had drifted in the kernel", view.counts.repaired),
        ):
            yield _counter(f"weft_rows_{name}", text, "table", dict(by_table))

    def _census(self) -> dict[str, int]:
        """Rows of the tables that programs write. Counting walks them: once in a while will do."""
        if time.monotonic() - self._counted_at_s >= CENSUS_PERIOD_S:
            self._counted_at_s = time.monotonic()
            self._counted = {
                name: len(self._view.tables[name])
                for name, spec in TABLES.items()
                if spec.is_state and spec.kind is TableKind.LRU_HASH
            }
        return self._counted

    def _troubled(self) -> Iterator[Metric]:
        failing = GaugeMetricFamily("weft_sources_failing", "Sources that cannot be read now")
        failing.add_metric((), len(self._troubles()))
        yield failing
        broken = {str(kind): 0 for kind in Kind}
        for kind, _ in self._view.broken:
            broken[kind] += 1
        yield _gauge("weft_broken_objects", "Objects that were not understood", "kind", broken)


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for of, value in values.items():
        family.add_metric((of,), value)
    return family


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for of, value in values.items():
        family.add_metric((of,), value)
    return family
