"""A load balancer for the lab, in place of a cloud's: Services of type LoadBalancer get addresses,
and the world outside (the switch's namespace) gets routes that lead these to nodes.

usage: python -m deploy.lab.balancer CLUSTER KUBECTL, started with the cluster. Owns the pool of
addresses and these routes; what a node does with a packet is the network's to show.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from deploy.lab import host, spec
from deploy.lab.api import Api
from deploy.lab.spec import Cluster

POOLS: dict[str, IPv4Network | IPv6Network] = {
    "IPv4": IPv4Network("198.51.100.128/25"),
    "IPv6": IPv6Network("2001:db8:51::1:0/121"),
}
# core/v1's name for what must be taken back before the Service may go.
_FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
_LOOK_EVERY_S = 0.5
Object = dict[str, Any]


@dataclass(slots=True)
class Balancer:
    """Follows Services; every half second asks nodes how those with policy Local are there."""

    api: Api
    services: dict[str, Object] = field(default_factory=dict)
    given: dict[str, tuple[str, ...]] = field(default_factory=dict)
    routed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    changed: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()
        while True:
            self.changed.wait(_LOOK_EVERY_S)
            self.changed.clear()
            for name, service in list(self.services.items()):
                self._serve(name, service)
            self._route()

    def _follow(self) -> None:
        """The watch, and the next one when it ends; ended, it lists anew."""
        words = ("get", "services", "--all-namespaces", "--watch", "--output-watch-events")
        while True:
            watch = subprocess.Popen(
                self.api.words(*words, "--output=json"), stdout=subprocess.PIPE, text=True
            )
            assert watch.stdout
            for line in watch.stdout:
                event = json.loads(line)
                self._take(event["type"], event["object"])
            watch.wait()

    def _take(self, kind: str, service: Object) -> None:
        meta = service["metadata"]
        name = f"{meta['namespace']}/{meta['name']}"
        if kind == "DELETED":
            self.services.pop(name, None)
            self.given.pop(name, None)
        else:
            self.services[name] = service
        self.changed.set()

    def _serve(self, name: str, service: Object) -> None:
        """One step towards what a Service is to have; what the API makes of it brings the next."""
        finalizers = service["metadata"].get("finalizers", [])
        if _is_wanted(service):
            addresses = self.given.setdefault(name, tuple(self._free(service)))
            if _FINALIZER not in finalizers:
                self._patch(name, {"metadata": {"finalizers": [*finalizers, _FINALIZER]}})
            elif _told(service) != addresses:
                self._tell(name, addresses)
        elif _FINALIZER in finalizers:
            self.given.pop(name, None)
            kept = [one for one in finalizers if one != _FINALIZER]
            if _told(service):
                self._tell(name, ())
            else:
                self._patch(name, {"metadata": {"finalizers": kept}})

    def _free(self, service: Object) -> Iterator[str]:
        held = {address for addresses in self.given.values() for address in addresses}
        for family in service["spec"].get("ipFamilies", ()):
            yield next(str(a) for a in POOLS[family].hosts() if str(a) not in held)

    def _tell(self, name: str, addresses: tuple[str, ...]) -> None:
        ingress = [{"ip": address} for address in addresses]
        self._patch(
            name, {"status": {"loadBalancer": {"ingress": ingress}}}, "--subresource=status"
        )

    def _patch(self, name: str, patch: Object, *words: str) -> None:
        """A Service that is gone or has moved on meanwhile comes by the watch."""
        namespace, _, own = name.partition("/")
        at = ("service", own, f"--namespace={namespace}", "--type=merge")
        host.succeeds(*self.api.words("patch", *at, f"--patch={json.dumps(patch)}", *words))

    def _route(self) -> None:
        wanted = {
            address: _ways(self.api.cluster, self.services[name], address)
            for name, addresses in self.given.items()
            if name in self.services
            for address in addresses
        }
        for address in {**self.routed, **wanted}:
            hops = wanted.get(address, ())
            if hops != self.routed.get(address, ()):
                self._lead(address, hops)
        self.routed = wanted

    def _lead(self, address: str, hops: tuple[str, ...]) -> None:
        """Who asks from outside has an address that no node's network holds."""
        way = [word for hop in hops for word in ("nexthop", "via", hop)]
        source = str(spec.OUTSIDE6 if ":" in address else spec.OUTSIDE4)
        words = ("replace", address, "src", source, *way) if hops else ("delete", address)
        host.succeeds("ip", "-n", self.api.cluster.switch_namespace, "route", *words)


def _is_wanted(service: Object) -> bool:
    is_going = "deletionTimestamp" in service["metadata"]
    return service["spec"]["type"] == "LoadBalancer" and not is_going


def _told(service: Object) -> tuple[str, ...]:
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    return tuple(one.get("ip", "") for one in ingress)


def _ways(cluster: Cluster, service: Object, address: str) -> tuple[str, ...]:
    """Connections are spread over nodes, but where a client is to meet one endpoint only."""
    hops = tuple(_hops(cluster, service, address))
    return hops[:1] if service["spec"].get("sessionAffinity") == "ClientIP" else hops


def _hops(cluster: Cluster, service: Object, address: str) -> Iterator[str]:
    """The nodes that take the address's connections in; of policy Local, those that say so."""
    port = service["spec"].get("healthCheckNodePort", 0)
    for node in cluster.nodes():
        at = str(node.address.v6 if ":" in address else node.address.v4)
        if not port or _is_healthy(at, port):
            yield at


def _is_healthy(at: str, port: int) -> bool:
    connection = http.client.HTTPConnection(at, port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    Balancer(Api(spec.load(sys.argv[1]), Path(sys.argv[2]))).run()
