"""Pods of a cluster test and what they are asked to do: connect, resolve, say who called.

Owns how a test speaks from inside a pod. Every pod runs agnhost's netexec: HTTP on 8080, UDP on
8081, both answering `hostname` and `clientip`.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from deploy.lab.api import Api
from deploy.lab.images import AGNHOST_IMAGE

HTTP_PORT = 8080
UDP_PORT = 8081

Ip = IPv4Address | IPv6Address
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pod:
    """A running pod, by name, with its place and its addresses of both families."""

    api: Api
    namespace: str
    name: str
    node: str
    addresses: tuple[Ip, ...]

    def address(self, family: int) -> Ip:
        return next(address for address in self.addresses if address.version == family)

    def run(self, *argv: str, timeout_s: float = 60) -> str:
        """Runs a command in the pod's container; RuntimeError when it fails."""
        words = ("exec", f"--namespace={self.namespace}", self.name, "--")
        return self.api.run(*words, *argv, timeout_s=timeout_s)

    def ask(
        self, host: Ip | str, port: int, protocol: str, request: str, tries: int = 1
    ) -> list[str]:
        """The answers of `host` to `tries` requests, each on a connection or socket of its own.

        Raises AssertionError that carries the errors when one of them was not answered.
        """
        query = f"host={host}&port={port}&protocol={protocol}&request={request}&tries={tries}"
        url = f"http://localhost:{HTTP_PORT}/dial?{query}"
        answer = json.loads(self.run("curl", "-sS", "--max-time", "50", url))
        assert not answer.get("errors"), f"{self.name} asked {host}:{port}/{protocol}: {answer}"
        responses: list[str] = answer["responses"]
        return responses

    def reaches(self, host: Ip | str, port: int, protocol: str = "tcp") -> bool:
        """Whether one try, of at most a second, is answered."""
        argv = ["/agnhost", "connect", f"{_bracketed(host)}:{port}", "--timeout=1s"]
        if protocol == "udp":
            argv = ["sh", "-c", f"printf hostname | nc -u -w 1 {host} {port} | grep -q ."]
        try:
            self.run(*argv)
        except RuntimeError:
            return False
        return True

    def connect_error(self, host: Ip | str, port: int) -> str:
        """Why no TCP connection was made in two seconds (TIMEOUT, REFUSED, ...), or nothing."""
        connect = f"/agnhost connect '{_bracketed(host)}:{port}' --timeout=2s 2>&1 || true"
        return self.run("sh", "-c", connect).strip()

    def start(self, script: str) -> subprocess.Popen[str]:
        """Starts a shell script in the pod and gives its handle, output to be read from it."""
        words = self.api.words("exec", f"--namespace={self.namespace}", self.name)
        return subprocess.Popen(
            [*words, "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True
        )


def _bracketed(host: Ip | str) -> str:
    return f"[{host}]" if isinstance(host, IPv6Address) else str(host)


def caller(answer: str) -> Ip:
    """The address in an answer to `clientip`, which is `address:port` or `[address]:port`."""
    return ip_address(answer.rsplit(":", 1)[0].strip("[]"))


def pod_manifest(namespace: str, name: str, node: str, labels: dict[str, str]) -> Manifest:
    """A netexec pod bound to a node, ready when kubelet's probe of its HTTP port is answered."""
    container = {
        "name": "netexec",
        "image": AGNHOST_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["netexec", f"--http-port={HTTP_PORT}", f"--udp-port={UDP_PORT}"],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": HTTP_PORT},
            "periodSeconds": 1,
            "failureThreshold": 1,
        },
    }
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    metadata = {"name": name, "namespace": namespace, "labels": {"pod": name, **labels}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def service_manifest(namespace: str, name: str, selector: dict[str, str]) -> Manifest:
    """A dual-stack Service: HTTP on port 80, UDP on 8081."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "selector": selector,
            "ports": [
                {"name": "http", "port": 80, "targetPort": HTTP_PORT, "protocol": "TCP"},
                {"name": "udp", "port": UDP_PORT, "protocol": "UDP"},
            ],
        },
    }


def find(api: Api, namespace: str, name: str) -> Pod:
    """The running pod of that name as the API describes it."""
    have = api.get("pod", f"--namespace={namespace}", name)
    addresses = tuple(ip_address(entry["ip"]) for entry in have["status"]["podIPs"])
    return Pod(api, namespace, name, have["spec"]["nodeName"], addresses)
