"""Owns what happens in the demo: its pods, its Service, its policies and the questions asked."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import wait_for

SERVICE, PORT, TARGET = "web", 80, 8080
VIPS = ("10.96.0.80", "fd00:10:96::80")
WATCH_S = 5
DENY, ALLOW = "web-deny-all", "web-allow-shops"
PODS: Mapping[str, tuple[int, Mapping[str, str]]] = {
    "web-1": (0, {"app": "web"}),
    "web-2": (0, {"app": "web"}),
    "web-3": (1, {"app": "web"}),
    "shop": (0, {"role": "shop"}),
    "till": (1, {"role": "shop"}),
    "stranger": (1, {}),
}


class Story:
    """The demo's acts, in order."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.pods: dict[str, Pod] = {}
        self.watchers: dict[str, subprocess.Popen[str]] = {}

    def start_nodes(self) -> None:
        for name in ("east", "west"):
            self.lab.add_node(name)
        for node in self.lab.nodes:
            node.start()

    def wire_pods(self) -> None:
        for name, (at, labels) in PODS.items():
            node = self.lab.nodes[at]
            self.pods[name] = node.add_pod(name, labels=labels)
            if "app" in labels:
                node.serve(self.pods[name], TARGET)

    def publish_service(self) -> None:
        backends = [p for n, p in self.pods.items() if n.startswith("web-")]
        addresses = self.lab.endpoints(backends)
        port, target = [("http", "TCP", PORT)], [("http", "TCP", TARGET)]
        slices = [
            manifests.endpoint_slice(f"web-v{v}", "default", SERVICE, addresses, target, v)
            for v in (4, 6)
        ]
        self.lab.manifests.put(manifests.service(SERVICE, "default", VIPS, port), *slices)
        wait_for("the Service answers", lambda: all(self.ask("shop", vip) for vip in VIPS))

    def publish_policies(self) -> None:
        shops = {"from": [{"podSelector": {"matchLabels": {"role": "shop"}}}],
                 "ports": [{"protocol": "TCP", "port": TARGET}]}  # fmt: skip
        self.lab.manifests.put(policy(DENY, []), policy(ALLOW, [shops]))
        wait_for("the policies hold", lambda: not self.ask("stranger", VIPS[0]))

    def verdicts(self) -> dict[str, str]:
        """Who is let in, while `weft flows` of every node looks on."""
        self.watchers = {n.name: watch_drops(n) for n in self.lab.nodes}
        asked = ("shop", "till", "stranger")
        return {name: self.ask(name, VIPS[0], patience_s=WATCH_S - 1) for name in asked}

    def ask(self, pod: str, vip: str, *, patience_s: int = 1) -> str:
        """The name of the endpoint that answered a connection, "" when none did in time."""
        script = (
            "import socket,sys\n"
            f"s = socket.create_connection(({vip!r}, {PORT}), {patience_s})\n"
            "print(s.makefile().readline().split()[0])\n"
        )
        return self.pods[pod].attempt(sys.executable, "-c", script).stdout.strip()

    def explained_drops(self) -> str:
        """Per node: what was counted, and the flows that were seen with the policies to blame."""
        said = []
        for node in self.lab.nodes:
            flows = self.watchers[node.name].communicate(timeout=30)[0]
            said += [f"node {node.name}", node.weft("drops", check=False).rstrip(), flows.rstrip()]
        return "\n".join(said)


def watch_drops(node: LabNode) -> "subprocess.Popen[str]":
    """`weft flows --drops`, started; it ends by itself."""
    argv = node.weft_command("flows", "--drops", "--for", str(WATCH_S))
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def policy(name: str, ingress: list[dict[str, Any]]) -> manifests.Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }
