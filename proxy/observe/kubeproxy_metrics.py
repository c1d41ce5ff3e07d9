"""kube-proxy's metrics, with our true values: dashboards and alerts made for it go on.

Names, labels and buckets: kubernetes pkg/proxy/metrics/metrics.go (1.36), those that every mode has
and those of nftables that mean something here; the conntrack reconciler's are the sweep's
(metrics.py). A sync is a turn of the loop that took up Services or endpoints; it fails where the
kernel refuses a row or its deletion.
"""

import collections
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from weft.proxy.apply.gate import Stage
from weft.proxy.loop import Turn, View
from weft.proxy.model.objects import EndpointSlice, Kind, Record
from weft.proxy.model.world import Change, World
from weft.proxy.observe.health import Health
from weft.proxy.plan.services import families, serve

SYNC_BUCKETS = tuple(0.001 * 2**step for step in range(15))
_PROGRAMMING_BUCKETS = (0.25, 0.5, *range(1, 60), *range(60, 120, 5), *range(120, 301, 30))
_FAMILY = ("ip_family",)
_CHANGES = ((Kind.SLICE, "endpoint"), (Kind.SERVICE, "service"))
_KINDS = frozenset(kind for kind, _ in _CHANGES)
_TABLES = ("frontends", "slots", "rings", "backends", "source_ranges")


class KubeProxyMetrics(Collector):
    """Counts turns as they end, and reads at a scrape what waits."""

    def __init__(self, registry: CollectorRegistry, view: View, health: Health) -> None:
        self._view, self._health = view, health
        self._started_s = time.time()
        self._stage = view.stage
        self._queued_s = 0.0
        self._sync, self._sync_full, self._sync_partial = (
            Histogram(f"kubeproxy_sync_{part}proxy_rules_duration_seconds", text, _FAMILY,
                      buckets=SYNC_BUCKETS, registry=registry)
            for part, text in (
                ("", "SyncProxyRules latency in seconds"),
                ("full_", "SyncProxyRules latency in seconds for full resyncs"),
                ("partial_", "SyncProxyRules latency in seconds for partial resyncs"),
            )
        )  # fmt: skip
        self._last_synced = Gauge(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced", _FAMILY, registry=registry,
        )  # fmt: skip
        self._failures, self._cleanup_failures = (
            Counter(f"kubeproxy_sync_proxy_rules_nftables_{part}_failures", text, _FAMILY,
                    registry=registry)
            for part, text in (
                ("sync", "Cumulative proxy rules sync failures: turns with rows refused"),
                ("cleanup", "Cumulative proxy rules cleanup failures: turns with rows left"),
            )
        )  # fmt: skip
        self._refused, self._undeleted = 0, 0
        self._programming = Histogram(
            "kubeproxy_network_programming_duration_seconds",
            "In Cluster Network Programming Latency in seconds",
            _FAMILY, buckets=_PROGRAMMING_BUCKETS, registry=registry,
        )  # fmt: skip
        self._changes = {
            kind: Counter(
                f"kubeproxy_sync_proxy_rules_{name}_changes",
                f"Cumulative proxy rules {name.capitalize()} changes", registry=registry,
            )
            for kind, name in _CHANGES
        }  # fmt: skip
        registry.register(self)
        view.watch_turns(self._turned)

    # --- as turns end ---
    def _turned(self, turn: Turn) -> None:
        became_listed = turn.stage is Stage.LISTED and self._stage is not Stage.LISTED
        self._stage = turn.stage
        changes = [change for change in turn.changes if change.kind in _KINDS]
        for change in changes:
            self._changes[change.kind].inc()
            if turn.stage is Stage.LISTED:
                self._programmed(change)
        if turn.stage is Stage.LISTED and (changes or became_listed):
            self._synced(turn, full=became_listed)
        self._count_failures()

    def _count_failures(self) -> None:
        counts, families = self._view.counts, self._health.families()
        refused, undeleted = _of_services(counts.refused), _of_services(counts.undeleted)
        for family in families:
            self._failures.labels(family).inc(refused > self._refused)
            self._cleanup_failures.labels(family).inc(undeleted > self._undeleted)
        self._refused, self._undeleted = refused, undeleted

    def _synced(self, turn: Turn, *, full: bool) -> None:
        took_s = turn.ended_s - turn.started_s
        self._queued_s = _wall_s(turn.queued_s)
        for family in self._health.families():
            self._sync.labels(family).observe(took_s)
            (self._sync_full if full else self._sync_partial).labels(family).observe(took_s)
            self._last_synced.labels(family).set_to_current_time()

    def _programmed(self, change: Change) -> None:
        """Deletions and changes from before our start say nothing of us (kube-proxy counts so)."""
        if isinstance(change.after, EndpointSlice):
            triggered_s = change.after.triggered_ns / 1e9
            family = _family(change.after) or _family(change.before)
            if family and triggered_s > self._started_s:
                self._programming.labels(family).observe(time.time() - triggered_s)

    # --- at a scrape, on a thread of its own ---
    def collect(self) -> Iterable[Metric]:
        queued = self._view.queued()
        for kind, name in _CHANGES:
            text = f"Pending proxy rules {name.capitalize()} changes"
            value = queued.get(kind, 0)
            yield GaugeMetricFamily(
                f"kubeproxy_sync_proxy_rules_{name}_changes_pending", text, value
            )
        yield self._last_queued()
        yield self._no_local()
        yield from self._probes()

    def _last_queued(self) -> Metric:
        """Of what waits, if anything does: far above the last sync, it tells that this hangs."""
        metric = GaugeMetricFamily(
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued", labels=_FAMILY,
        )  # fmt: skip
        waits_since_s = self._view.queued_since_s
        waits = waits_since_s is not None and not _KINDS.isdisjoint(self._view.queued())
        queued_s = _wall_s(waits_since_s) if waits and waits_since_s else self._queued_s
        for family in self._health.families() if queued_s else ():
            metric.add_metric((family,), queued_s)
        return metric

    def _no_local(self) -> Metric:
        metric = GaugeMetricFamily(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Number of services with a Local traffic policy and no endpoints",
            labels=("traffic_policy", *_FAMILY),
        )
        found = collections.Counter(_dropped(self._view.world))
        for family in self._health.families():
            for policy in ("internal", "external"):
                metric.add_metric((policy, family), found[policy, family])
        return metric

    def _probes(self) -> Iterator[Metric]:
        health = self._health
        for name, codes in (("healthz", health.healthz_codes), ("livez", health.livez_codes)):
            metric = CounterMetricFamily(
                f"kubeproxy_proxy_{name}", f"Cumulative proxy {name} HTTP status", labels=("code",)
            )
            for code, number in dict(codes).items():
                metric.add_metric((str(int(code)),), number)
            yield metric


def _dropped(world: World) -> Iterator[tuple[str, str]]:
    """Policy and family of each service port whose clients are dropped, having endpoints elsewhere
    only: as kube-proxy counts, by port.
    """
    for service in world.services():
        if service.internal_local or service.external_local:
            for version, claims in families(world, service):
                choice = serve(world, service, version, claims).choice
                if choice.anywhere and choice.local == ():
                    external = any(claim.is_external for claim in claims)
                    if service.internal_local:
                        yield "internal", f"IPv{version}"
                    if service.external_local and external:
                        yield "external", f"IPv{version}"


def _of_services(counts: Mapping[str, int]) -> int:
    return sum(counts.get(table, 0) for table in _TABLES)


def _family(record: Record | None) -> str:
    """That of a slice's addresses; "" where it has none."""
    if not isinstance(record, EndpointSlice) or not record.endpoints:
        return ""
    return f"IPv{record.endpoints[0].address.version}"


def _wall_s(monotonic_s: float) -> float:
    return time.time() - (time.monotonic() - monotonic_s)
