"""Owns the manifest folder of a lab: the intent that its daemons read instead of an API server."""

import os
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Protocol

import yaml

Manifest = Mapping[str, Any]
Address = IPv4Address | IPv6Address


class Follower(Protocol):
    """Who is told of every object too: what stands for the API server of another program."""

    def put(self, item: Manifest) -> None: ...

    def remove(self, kind: str, name: str, namespace: str) -> None: ...


class Manifests:
    """One file per object, replaced by rename so that a reader never sees half of one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.followers: list[Follower] = []
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, *objects: Manifest) -> None:
        for item in objects:
            for follower in self.followers:
                follower.put(item)
            path = self._path(item["kind"], item["metadata"])
            fresh = path.with_suffix(".tmp")
            fresh.write_text(yaml.safe_dump(dict(item), sort_keys=False))
            os.replace(fresh, path)

    def remove(self, kind: str, name: str, namespace: str = "") -> None:
        for follower in self.followers:
            follower.remove(kind, name, namespace)
        self._path(kind, {"name": name, "namespace": namespace}).unlink(missing_ok=True)

    def _path(self, kind: str, metadata: Mapping[str, Any]) -> Path:
        namespace = metadata.get("namespace") or "_"
        return self.folder / f"{kind.lower()}.{namespace}.{metadata['name']}.yaml"


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Manifest:
    every = {"kubernetes.io/metadata.name": name, **(labels or {})}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": every}}


def node(name: str, addresses: Sequence[str], pod_cidrs: Sequence[str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]},
    }


def pod(
    name: str,
    space: str,
    uid: str,
    on: str,
    addresses: Sequence[Address],
    labels: Mapping[str, str],
    annotations: Mapping[str, str] | None = None,
    *,
    host_network: bool = False,
) -> Manifest:
    ips = [{"ip": str(a)} for a in addresses]
    status: dict[str, Any] = {"phase": "Running" if ips else "Pending"}
    if ips:
        status |= {"podIP": ips[0]["ip"], "podIPs": ips}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": space,
            "uid": uid,
            "labels": dict(labels),
            "annotations": dict(annotations or {}),
        },
        "spec": {"nodeName": on, "hostNetwork": host_network},
        "status": status,
    }


def service(
    name: str, space: str, cluster_ips: Sequence[str], ports: Sequence[tuple[str, str, int]]
) -> Manifest:
    """`ports`: (name, protocol, port)."""
    listed = [{"name": n, "protocol": p, "port": number} for n, p, number in ports]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ips[0],
            "clusterIPs": list(cluster_ips),
            "ipFamilies": ["IPv6" if ":" in a else "IPv4" for a in cluster_ips],
            "ports": listed,
        },
    }


def endpoint_slice(
    name: str,
    space: str,
    of: str,
    addresses: Sequence[Address],
    ports: Sequence[tuple[str, str, int]],
    version: int = 4,
) -> Manifest:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": space,
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": f"IPv{version}",
        "ports": [{"name": n, "protocol": p, "port": number} for n, p, number in ports],
        "endpoints": [
            {"addresses": [str(a)], "conditions": {"ready": True}}
            for a in addresses
            if a.version == version
        ],
    }
