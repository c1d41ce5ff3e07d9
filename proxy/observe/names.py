"""Whose an address is, for people: pod, Service, node or outside. Reads a World only."""

from weft.proxy.api import weft_pb2 as pb
from weft.proxy.model.objects import Address
from weft.proxy.model.world import World
from weft.proxy.plan.node import gateways


def end(world: World, address: Address, port: int) -> pb.FlowEnd:
    """One end of a flow with its name. A host-network pod is its node."""
    kind, name = whose(world, address)
    return pb.FlowEnd(address=str(address), port=port, kind=kind, name=name)


def whose(world: World, address: Address) -> tuple[str, str]:
    """Kind and name of what holds `address` now."""
    for workload in world.workloads_at(address):
        return "pod", str(workload.ref)
    for pod in world.pods_at(address):
        if not pod.host_network:
            return "pod", str(pod.ref)
    for service in world.services_at(address):
        return "service", str(service.ref)
    for node in world.nodes_at(address):
        return "node", node.ref.name
    for node in world.nodes():
        if any(address == gateway for gateway, _ in gateways(node)):
            return "node", node.ref.name
    for service in world.services_exposed_at(address):
        return "service", str(service.ref)
    return "outside", ""
