"""A stand-in for kube-apiserver that lists a generated cluster and streams events told to it.

usage: apiserver.py PORT SERVICES ENDPOINTS-PER-SERVICE. It serves the lists and watches that weftd
asks for; a line {"path": ..., "event": {...}} on standard input goes to that path's watchers.
It answers reads only: real kube-apiserver is what correctness is tested against (tests/cluster).
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
FIRST_VIP, FIRST_POD = IPv4Address("10.96.0.10"), IPv4Address("10.128.0.0")


class Cluster:
    """The generated objects as list bodies, made once; and the open watches by path."""

    def __init__(self, services: int, endpoints: int) -> None:
        self.lists = {
            SERVICES: body("ServiceList", (service(i) for i in range(services))),
            SLICES: body("EndpointSliceList", (slice_of(i, endpoints) for i in range(services))),
            NODES: body("NodeList", [node("east", "172.30.0.1", 1), node("west", "172.30.0.2", 2)]),
            NAMESPACES: body("NamespaceList", [meta("default") | {"spec": {}}]),
        }
        self.watches: dict[str, list[asyncio.StreamWriter]] = {}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            target = line.split()[1].decode()
            while (await reader.readline()).strip():
                pass
            path, _, query = target.partition("?")
            if "watch=" in query:
                self.open_watch(path, writer)
                return
            data = self.lists.get(path) or body("List", [])
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data)
            await writer.drain()
        writer.close()

    def open_watch(self, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        self.watches.setdefault(path, []).append(writer)

    def tell(self, path: str, event: dict[str, Any]) -> None:
        line = json.dumps(event).encode() + b"\n"
        for writer in self.watches.get(path, []):
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))


def body(kind: str, items: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> bytes:
    head = {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}}
    return json.dumps(head | {"items": list(items)}).encode()


def meta(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", **more}}


def service(number: int) -> dict[str, Any]:
    vip = str(FIRST_VIP + number)
    return meta(f"s{number}", namespace="default") | {
        "spec": {
            "type": "ClusterIP", "clusterIP": vip, "clusterIPs": [vip], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        }
    }  # fmt: skip


def slice_of(number: int, endpoints: int, spare: int = 0) -> dict[str, Any]:
    """The slice of service `number`; `spare` more endpoints tell one version from another."""
    first = FIRST_POD + number * 64
    return meta(
        f"s{number}-x", namespace="default", labels={"kubernetes.io/service-name": f"s{number}"}
    ) | {
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [
            {"addresses": [str(first + i)], "conditions": {"ready": True}, "nodeName": "west"}
            for i in range(endpoints + spare)
        ],
    }


def node(name: str, address: str, number: int) -> dict[str, Any]:
    cidr = f"10.244.{number}.0/24"
    return meta(name) | {
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


async def main() -> None:
    port, services, endpoints = map(int, sys.argv[1:4])
    cluster = Cluster(services, endpoints)
    await asyncio.start_server(cluster.answer, "127.0.0.1", port)
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(told), sys.stdin
    )
    print("listening", flush=True)
    while line := await told.readline():
        order = json.loads(line)
        cluster.tell(order["path"], order["event"])


if __name__ == "__main__":
    asyncio.run(main())
