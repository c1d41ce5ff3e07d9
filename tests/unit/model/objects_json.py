"""Objects as an API server writes them, fields that Weft does not read among them."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import msgspec

Json = dict[str, Any]
_META = {
    "uid": "5d1f",
    "resourceVersion": "1234",
    "creationTimestamp": "2023-11-14T22:13:20Z",
    "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
}

SERVICE: Json = {
    "metadata": {**_META, "name": "kube-dns", "namespace": "kube-system", "labels": {"a": "b"}},
    "spec": {
        "ports": [
            {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
            {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": "dns-tcp"},
        ],
        "selector": {"k8s-app": "kube-dns"},
        "clusterIP": "10.96.0.10",
        "clusterIPs": ["10.96.0.10", "fd00:96::a"],
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "PreferDualStack",
        "internalTrafficPolicy": "Cluster",
    },
    "status": {"loadBalancer": {}},
}

SLICE: Json = {
    "metadata": {
        **_META,
        "name": "kube-dns-x7",
        "namespace": "kube-system",
        "generateName": "kube-dns-",
        "labels": {"kubernetes.io/service-name": "kube-dns"},
        "annotations": {
            "endpoints.kubernetes.io/last-change-trigger-time": "2023-11-14T22:13:20.123456Z"
        },
    },
    "addressType": "IPv4",
    "endpoints": [
        {
            "addresses": ["10.244.0.5"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": "node-1",
            "zone": "a",
            "targetRef": {
                "kind": "Pod", "namespace": "kube-system", "name": "coredns-5", "uid": "u",
            },
        },
        {
            "addresses": ["10.244.0.6", "10.244.0.7"],
            "conditions": {"ready": False, "serving": True, "terminating": True},
        },
    ],
    "ports": [
        {"name": "dns", "protocol": "UDP", "port": 53},
        {"name": "dns-tcp", "protocol": "TCP", "port": 53, "appProtocol": "tcp"},
        {"name": None, "protocol": "TCP", "port": 54},
    ],
}  # fmt: skip

POD: Json = {
    "metadata": {**_META, "name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
    "spec": {
        "nodeName": "node-1",
        "containers": [
            {
                "name": "web",
                "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "http", "containerPort": 8081, "protocol": "UDP"},
                    {"name": "http", "containerPort": 9999},
                    {"containerPort": 7000, "protocol": "TCP"},
                ],
            },
            {"name": "bare"},
        ],
        "initContainers": [
            {
                "name": "proxy",
                "restartPolicy": "Always",
                "ports": [{"name": "proxy", "containerPort": 15001}],
            },
            {"name": "once", "ports": [{"name": "gone", "containerPort": 1}]},
        ],
    },
    "status": {
        "phase": "Running",
        "hostIP": "192.0.2.1",
        "podIP": "10.244.1.5",
        "podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00:1::5"}],
    },
}

NODE: Json = {
    "metadata": {**_META, "name": "node-1", "labels": {"zone": "a"}},
    "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
    "status": {
        "addresses": [
            {"type": "InternalIP", "address": "2001:db8::1"},
            {"type": "ExternalIP", "address": "198.51.100.1"},
            {"type": "InternalIP", "address": "192.0.2.1"},
            {"type": "Hostname", "address": "node-1"},
        ]
    },
}


def with_field(manifest: Json, value: object, *path: str) -> Json:
    """A copy of `manifest` in which the field at `path` is `value`."""
    changed = deepcopy(manifest)
    _parent(changed, path)[path[-1]] = value
    return changed


def without_field(manifest: Json, *path: str) -> Json:
    changed = deepcopy(manifest)
    _parent(changed, path).pop(path[-1], None)
    return changed


def _parent(manifest: Json, path: Sequence[str]) -> Json:
    for step in path[:-1]:
        manifest = manifest[step]
    return manifest


def listed(items: Sequence[Json], version: str, next_page: str) -> bytes:
    meta = {"resourceVersion": version, "continue": next_page, "remainingItemCount": 7}
    return msgspec.json.encode({"kind": "XList", "metadata": meta, "items": items})


def watched(said: str, manifest: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({"type": said, "object": manifest})
