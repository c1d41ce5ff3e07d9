"""From the API's bytes to every row: 10,000 services with 100,000 endpoints, CPU and memory."""

import gc
import json
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

from tests.bench.report import Figure, show
from weft.proxy.model.decode import ListPage, decode, decode_list
from weft.proxy.model.objects import Broken, Kind
from weft.proxy.model.world import Change, Settings, World, apply_changes
from weft.proxy.plan import full_plan, services

T = TypeVar("T")
SERVICES, ENDPOINTS = 10_000, 10
VIPS, PODS = int(IPv4Address("10.96.0.0")), int(IPv4Address("10.244.0.0"))


def service(number: int) -> dict[str, Any]:
    vip = str(IPv4Address(VIPS + number + 1))
    return {
        "metadata": {"name": f"service-{number}", "namespace": "bench", "resourceVersion": "1"},
        "spec": {
            "type": "ClusterIP", "clusterIP": vip, "clusterIPs": [vip], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    }  # fmt: skip


def endpoint(number: int, ready: bool = True) -> dict[str, Any]:
    return {
        "addresses": [str(IPv4Address(PODS + number + 1))],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "nodeName": f"node-{number % 200}",
        "targetRef": {"kind": "Pod", "namespace": "bench", "name": f"pod-{number}", "uid": "u"},
    }


def endpoint_slice(number: int, ready: bool = True) -> dict[str, Any]:
    first = number * ENDPOINTS
    return {
        "metadata": {
            "name": f"service-{number}-x", "namespace": "bench",
            "labels": {"kubernetes.io/service-name": f"service-{number}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [endpoint(first + n, ready) for n in range(ENDPOINTS)],
    }  # fmt: skip


def page(items: list[dict[str, Any]]) -> bytes:
    return json.dumps({"metadata": {"resourceVersion": "1"}, "items": items}).encode()


def changes(kind: Kind, listed: ListPage) -> list[Change]:
    good = [record for record in listed.records if not isinstance(record, Broken)]
    return [Change(kind, getattr(r, "ref"), None, r) for r in good]  # noqa: B009


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = process_time()
    return work(), process_time() - started


def resident_mb() -> float:
    gc.collect()
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


def one_event(world: World) -> float:
    """CPU seconds from one slice's bytes to its service's rows, the mean of 200."""
    lines = [json.dumps(endpoint_slice(n, ready=False)).encode() for n in range(200)]
    started = process_time()
    for line in lines:
        record = decode(Kind.SLICE, line)
        assert not isinstance(record, Broken)
        key = getattr(record, "ref")  # noqa: B009
        change = Change(Kind.SLICE, key, world.table(Kind.SLICE).get(key), record)
        after = world.with_change(change)
        for touched in services.PLANNER.keys(change, world, after):
            list(services.PLANNER.rows(after, touched))
    return (process_time() - started) / len(lines)


def main() -> None:
    bare = resident_mb()
    texts = {
        Kind.SERVICE: page([service(n) for n in range(SERVICES)]),
        Kind.SLICE: page([endpoint_slice(n) for n in range(SERVICES)]),
    }
    size = sum(map(len, texts.values())) / 2**20
    loaded = resident_mb()
    pages, decoded_s = timed(lambda: {kind: decode_list(kind, t) for kind, t in texts.items()})
    moves = [move for kind, listed in pages.items() for move in changes(kind, listed)]
    world, world_s = timed(lambda: apply_changes(World(Settings("node-1")), moves))
    moves.clear()
    pages.clear()
    known = resident_mb()
    plan, plan_s = timed(lambda: full_plan(world))
    figures = (
        Figure("decode", f"{decoded_s:.2f} s", f"({size:.0f} MB of JSON)"),
        Figure("World", f"{world_s:.2f} s", "decode and World < 2 s"),
        Figure("full plan", f"{plan_s:.2f} s"),
        Figure("rows", f"{len(plan):,}"),
        Figure("one slice changes: bytes to rows", f"{one_event(world) * 1e3:.2f} ms"),
        Figure("memory of World", f"{known - loaded:.0f} MB"),
        Figure("memory of the rows", f"{resident_mb() - known:.0f} MB"),
        Figure("bare process", f"{bare:.0f} MB"),
    )
    show("Plan: 10,000 services with 100,000 endpoints (CPU seconds)", figures)


if __name__ == "__main__":
    main()
