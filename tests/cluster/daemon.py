"""Killing Weft's daemon on every node while traffic runs, and counting what the traffic noticed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from deploy.lab import host
from deploy.lab.api import Api
from deploy.lab.node import Running
from tests.cluster.pods import HTTP_PORT, UDP_PORT, Pod

DAEMON_SET = "weft"

# Counts connections through the Service, and those that a policy forbids; lists the failures.
_SCRIPT = """
rm -f /tmp/stop /tmp/answered /tmp/failures; touch /tmp/failures; answered=0
(opened=0; until [ -e /tmp/stop ]; do
   /agnhost connect {shut}:{http} --timeout=300ms 2>/dev/null && opened=$((opened+1))
 done; echo $opened > /tmp/opened) &
udp='http://localhost:{http}/dial?host={vip4}&port={udp}&protocol=udp&request=hostname'
until [ -e /tmp/stop ]; do
  for url in http://{vip4}/hostname 'http://[{vip6}]/hostname' "$udp"; do
    began=$(date -u +%T.%N); said=$(curl -sS --max-time 3 "$url" 2>&1)
    case $said in
      *alpha*|*beta*|*gamma*) answered=$((answered+1));;
      *) echo "$began $url: $said" >> /tmp/failures;;
    esac
  done
  echo $answered > /tmp/answered.new; mv /tmp/answered.new /tmp/answered
done
wait; echo $answered $(cat /tmp/opened); cat /tmp/failures
"""


@dataclass(frozen=True, slots=True)
class Result:
    """Connections: through the Service how many were answered and which failed (when, what, why);
    how many opened that a policy forbids."""

    answered: int
    opened: int
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Traffic:
    """A loop of new connections in one pod, until it is stopped."""

    pod: Pod
    process: subprocess.Popen[str]

    @classmethod
    def start(
        cls, pod: Pod, vip4: object, vip6: object, shut: IPv4Address | IPv6Address
    ) -> Traffic:
        ports = {"http": HTTP_PORT, "udp": UDP_PORT}
        script = _SCRIPT.format(vip4=vip4, vip6=vip6, shut=shut, **ports)
        return cls(pod, pod.start(script))

    def answered(self) -> int:
        return int(self.pod.run("sh", "-c", "cat /tmp/answered 2>/dev/null || echo 0"))

    def wait_moving(self, connections: int = 30) -> None:
        """Returns when so many more connections were answered."""
        goal = self.answered() + connections
        host.wait_until(
            f"{connections} more connections are answered",
            lambda: self.answered() >= goal,
            timeout_s=30,
            where=self.pod.api.cluster.state,
        )

    def stop(self) -> Result:
        self.pod.run("touch", "/tmp/stop")
        output, _ = self.process.communicate(timeout=30)
        counts, *failures = output.splitlines()
        answered, opened = map(int, counts.split())
        return Result(answered, opened, tuple(failures))


def restarts(api: Api) -> dict[str, int]:
    """Node -> how often its daemon was started again, of the nodes whose daemon is ready."""
    statuses = {p["spec"]["nodeName"]: p["status"]["containerStatuses"][0] for p in _pods(api)}
    return {node: s["restartCount"] for node, s in statuses.items() if s["ready"]}


def kill(api: Api, node: Running) -> None:
    """Sends SIGKILL to the daemon's process on a node, as the kernel out of memory would."""
    on_node = [p for p in _pods(api) if p["spec"]["nodeName"] == node.node.name]
    for pod in on_node:
        container = pod["status"]["containerStatuses"][0]["containerID"].rsplit("/", 1)[1]
        node.run("ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", container)


def is_in_order(api: Api, node: Running) -> bool:
    """Whether the node's tables in the kernel are the plan's, row by row: else it exits with 1."""
    pods = (p for p in _pods(api) if p["spec"]["nodeName"] == node.node.name)
    words = ("--namespace=kube-system", "--container=weftd", "--", "weft", "dump")
    return all(host.succeeds(*api.words("exec", p["metadata"]["name"], *words)) for p in pods)


def wait_back(api: Api, before: Mapping[str, int]) -> None:
    """Returns when every daemon of `before` was started again and is ready."""

    def is_back() -> bool:
        now = restarts(api)
        return all(now.get(node, 0) > count for node, count in before.items())

    what = "every weft daemon is back"
    host.wait_until(what, is_back, timeout_s=90, where=api.cluster.state, every_s=0.5)


def _pods(api: Api) -> list[dict[str, Any]]:
    pods = api.get("pods", "--namespace=kube-system")["items"]
    owners = ((p, p["metadata"].get("ownerReferences", [{}])[0]) for p in pods)
    named = ("DaemonSet", DAEMON_SET)
    return [p for p, owner in owners if (owner.get("kind"), owner.get("name")) == named]
