"""The network that Weft is compared with: the reference bridge plugin, static routes, kube-proxy.

Owns nothing that a Weft cluster uses. It has no NetworkPolicy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.lab import host, spec, switch
from deploy.lab.node import Running

PLUGINS = ("bridge", "host-local", "portmap", "bandwidth")
_PROXY_CONFIG = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "mode": "nftables",
    "clusterCIDR": f"{spec.POD_NETWORK4},{spec.POD_NETWORK6}",
    "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig"},
    # The numbers of conntrack are the machine's: a namespace may not write them.
    "conntrack": {"maxPerCore": 0, "min": 0},
}


def install(
    nodes: Mapping[str, Running],
    prefixes: Mapping[str, list[str]],
    tools: Mapping[str, Path],
    proxy_kubeconfig: Path,
) -> None:
    """Gives every node its bridge configuration, its routes and a kube-proxy."""
    for name, node in nodes.items():
        _forward(node)
        _route(node, nodes, prefixes)
        _masquerade(node)
        _start_proxy(node, tools["kube-proxy"], proxy_kubeconfig)
        _configure(node, prefixes[name], tools)


def _forward(node: Running) -> None:
    node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def _route(node: Running, nodes: Mapping[str, Running], prefixes: Mapping[str, list[str]]) -> None:
    lines = [
        f"route add {prefix} via {peer.node.address.v6 if ':' in prefix else peer.node.address.v4}"
        for name, peer in nodes.items()
        if name != node.node.name
        for prefix in prefixes[name]
    ]
    switch.ip_batch(node.node.namespace, lines)


def _masquerade(node: Running) -> None:
    """What leaves the cluster leaves with the node's address."""
    rules = "; ".join(
        f"{family} saddr {pods} {family} daddr != {{ {pods}, {own} }} masquerade"
        for family, pods, own in (
            ("ip", spec.POD_NETWORK4, spec.SERVICE_NETWORK4),
            ("ip6", spec.POD_NETWORK6, spec.SERVICE_NETWORK6),
        )
    )
    chain = f"chain leave {{ type nat hook postrouting priority 100; {rules}; }};"
    node.run("nft", f"table inet lab-masquerade {{ {chain} }}")


def _start_proxy(node: Running, binary: Path, kubeconfig: Path) -> None:
    folder = node.node.state / "var/lib/kube-proxy"
    folder.mkdir(parents=True)
    config = {**_PROXY_CONFIG, "hostnameOverride": node.node.name}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "kubeconfig").write_text(kubeconfig.read_text())
    host.spawn(
        [*node.words(), str(binary), "--config=/var/lib/kube-proxy/config.yaml"],
        log=node.node.state / "var/log/kube-proxy.log",
        cgroup=node.node.cgroup,
    )


def _configure(node: Running, prefixes: list[str], tools: Mapping[str, Path]) -> None:
    """Plugins first, the configuration last: kubelet reports Ready as soon as it is there."""
    node.run("mkdir", "-p", "/opt/cni/bin", "/etc/cni/net.d")
    node.run("cp", *(tools[name] for name in PLUGINS), "/opt/cni/bin/")
    target = "/etc/cni/net.d/10-reference.conflist"
    write = f'printf %s "$1" > {target}.new && mv {target}.new {target}'
    node.run("sh", "-ec", write, "sh", json.dumps(conflist(prefixes)))


def conflist(prefixes: list[str]) -> dict[str, Any]:
    """The plugins' configuration for a node that has these podCIDRs (CNI specification 1.0.0)."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": prefix}] for prefix in prefixes],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    shaping = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    plugins = [bridge, portmap, shaping]
    return {"cniVersion": "1.0.0", "name": "reference", "plugins": plugins}
