"""A stand-in for kube-apiserver that kube-proxy and weftd list and watch, fed line by line.

usage: apiserver.py PORT. A line {"put": OBJECT} or {"remove": [KIND, NAME, NAMESPACE]} on standard
input changes what is there and is told to whoever watches. It reads of selectors metadata.name
alone, serves JSON alone, and takes events only to forget them: the real kube-apiserver is what
correctness is tested against (tests/cluster).
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

PATHS = {
    "Service": "/api/v1/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/endpointslices",
    "Node": "/api/v1/nodes",
    "Namespace": "/api/v1/namespaces",
    "Pod": "/api/v1/pods",
    "ServiceCIDR": "/apis/networking.k8s.io/v1/servicecidrs",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/networkpolicies",
}
VERSIONS = {"discovery.k8s.io": "discovery.k8s.io/v1", "networking.k8s.io": "networking.k8s.io/v1"}
HEAD = "HTTP/1.1 {}\r\nContent-Type: application/json\r\n"
STREAM = HEAD.format("200 OK") + "Transfer-Encoding: chunked\r\n\r\n"
# A client that asked for its list in the watch waits for this (KEP-3157).
LIST_ENDS = {"k8s.io/initial-events-end": "true"}

Object = dict[str, Any]


class Cluster:
    """The objects by path and name, and who watches them."""

    def __init__(self) -> None:
        self.version = 1
        self.objects: dict[str, dict[str, Object]] = {path: {} for path in PATHS.values()}
        self.watches: dict[str, list[tuple[str, asyncio.StreamWriter]]] = {}

    def put(self, item: Object) -> None:
        kind, meta = item["kind"], item["metadata"]
        path, key = PATHS[kind], key_of(meta.get("namespace", ""), meta["name"])
        self.version += 1
        known = key in self.objects[path]
        stamped = {"uid": f"{kind}-{key}", **meta, "resourceVersion": str(self.version)}
        self.objects[path][key] = {**item, "metadata": stamped}
        self.tell(path, "MODIFIED" if known else "ADDED", self.objects[path][key])

    def remove(self, kind: str, name: str, namespace: str) -> None:
        self.version += 1
        gone = self.objects[PATHS[kind]].pop(key_of(namespace, name))
        gone["metadata"]["resourceVersion"] = str(self.version)
        self.tell(PATHS[kind], "DELETED", gone)

    def tell(self, path: str, kind: str, item: Object) -> None:
        for name, writer in self.watches.get(path, []):
            if name in ("", item["metadata"]["name"]) and not writer.is_closing():
                writer.write(chunk({"type": kind, "object": item}))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            verb, target, _ = line.decode().split()
            body = await read_body(reader)
            path, _, query = target.partition("?")
            words = {key: values[0] for key, values in parse_qs(query).items()}
            if "watch" in words:
                self.watch(path, words, writer)
                return
            status, data = self.get(path, words) if verb == "GET" else ("201 Created", body)
            head = HEAD.format(status) + f"Content-Length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + data)
            await writer.drain()
        writer.close()

    def get(self, path: str, words: Mapping[str, str]) -> tuple[str, bytes]:
        parent, _, name = path.rpartition("/")
        if found := self.objects.get(parent, {}).get(key_of("", name)):
            return "200 OK", json.dumps(found).encode()
        if path not in self.objects:
            return "404 Not Found", json.dumps({"kind": "Status", "code": 404}).encode()
        meta = {"resourceVersion": str(self.version)}
        return "200 OK", json.dumps({**type_of(path), "metadata": meta,
                                     "items": self.items(path, words)}).encode()  # fmt: skip

    def items(self, path: str, words: Mapping[str, str]) -> list[Object]:
        name = wanted_name(words)
        found = self.objects.get(path, {}).values()
        return [item for item in found if name in ("", item["metadata"]["name"])]

    def watch(self, path: str, words: Mapping[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM.encode())
        if words.get("sendInitialEvents") == "true":
            for item in self.items(path, words):
                writer.write(chunk({"type": "ADDED", "object": item}))
            meta = {"resourceVersion": str(self.version), "annotations": LIST_ENDS}
            end = type_of(path, one=True) | {"metadata": meta}
            writer.write(chunk({"type": "BOOKMARK", "object": end}))
        self.watches.setdefault(path, []).append((wanted_name(words), writer))


def key_of(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def wanted_name(words: Mapping[str, str]) -> str:
    """The one object that a field selector asks for; "": all."""
    selector = words.get("fieldSelector", "")
    return selector.removeprefix("metadata.name=") if "metadata.name=" in selector else ""


def type_of(path: str, *, one: bool = False) -> Object:
    kind = next((kind for kind, known in PATHS.items() if known == path), "Unknown")
    group = path.split("/")[2]
    return {"kind": kind if one else f"{kind}List", "apiVersion": VERSIONS.get(group, "v1")}


def chunk(event: Mapping[str, Any]) -> bytes:
    line = json.dumps(event).encode() + b"\n"
    return b"%x\r\n%s\r\n" % (len(line), line)


async def read_body(reader: asyncio.StreamReader) -> bytes:
    length = 0
    while header := (await reader.readline()).strip():
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return await reader.readexactly(length)


async def main() -> None:
    cluster = Cluster()
    await asyncio.start_server(cluster.answer, "0.0.0.0", int(sys.argv[1]))
    told = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(told), sys.stdin
    )
    print("listening", flush=True)
    while line := await told.readline():
        order = json.loads(line)
        if "put" in order:
            cluster.put(order["put"])
        else:
            cluster.remove(*order["remove"])


if __name__ == "__main__":
    asyncio.run(main())
