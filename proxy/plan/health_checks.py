"""Owns which Services a load balancer asks this node about, where, and how many endpoints it is
told of. Never listens and never answers.

The rules are kube-proxy's (LocalReadyEndpoints and HealthCheckNodePorts, 1.36).
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from weft.proxy.model.objects import Address, Ref, Service
from weft.proxy.model.world import World
from weft.proxy.plan.services import service_id, standpoint
from weft.proxy.plan.services_choice import Endpoint, categorize, endpoints
from weft.proxy.plan.services_frontends import node_port_addresses

_EVERY: dict[int, tuple[Address, ...]] = {4: (IPv4Address(0),), 6: (IPv6Address(0),)}


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


def asked_at(world: World, version: int) -> tuple[Address, ...]:
    """The node-port addresses where the setting names some; else every address there is."""
    if not world.settings.node_port_addresses:
        return _EVERY[version]
    # A link-local address is nothing to listen at without its link.
    return tuple(
        a for a in node_port_addresses(world) if a.version == version and not a.is_link_local
    )


def local_ready(world: World, asked: Asked) -> int:
    """How many addresses of this node are ready: what terminates is not, so that load balancers
    turn away while it serves to its end. A pod behind two ports counts once.
    """
    return len({endpoint.address for endpoint in _local(world, asked) if endpoint.ready})


def _local(world: World, asked: Asked) -> Iterator[Endpoint]:
    service = world.service(asked.service)
    if service is None:
        return
    at, slices = standpoint(world), world.slices_of(service.ref)
    for port in service.ports:
        identity = service_id(service.ref, port, asked.version)
        every = endpoints(identity, port, asked.version, slices)
        yield from categorize(every, at, uses_cluster=False, uses_local=True).local or ()
