"""Owns which Services a load balancer asks this node about, at which port, and how many endpoints
it is told of. Never listens and never answers.

The rules are kube-proxy's (LocalReadyEndpoints and HealthCheckNodePorts, 1.36).
"""

from collections.abc import Iterator
from typing import NamedTuple

from weft.proxy.model.objects import Ref, Service
from weft.proxy.model.world import World


class Asked(NamedTuple):
    """One family (4 or 6) of a Service; the families are two proxies, as in kube-proxy."""

    service: Ref
    version: int


def asked_of(service: Service) -> Iterator[Asked]:
    """The families of `service` that are asked about at its healthCheckNodePort; mostly none."""
    checked = service.type == "LoadBalancer" and service.external_local and service.proxied
    if checked and service.health_check_node_port and service.ports:
        for address in service.cluster_ips:
            yield Asked(service.ref, address.version)


def local_ready(world: World, asked: Asked) -> int:
    """How many addresses of this node are ready: what terminates is not, so that load balancers
    turn away while it serves to its end. A pod behind two ports counts once.
    """
    own = world.settings.node
    every = (e for piece in world.slices_of(asked.service) if piece.ports for e in piece.endpoints)
    return len(
        {
            e.address
            for e in every
            if e.ready and e.node == own and e.address.version == asked.version
        }
    )
