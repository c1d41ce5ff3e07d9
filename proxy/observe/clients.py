"""What a client somewhere gets of a Service, as planned for the client's node (plan.clients)."""

from collections.abc import Iterator

from weft.proxy.api import weft_pb2 as pb
from weft.proxy.model.objects import Service
from weft.proxy.model.world import World
from weft.proxy.plan.clients import Client, client_at, outcomes, seen_as


class UnknownClient(Exception):
    """There is no node and no pod of the name."""


def client_of(world: World, request: pb.ListRequest) -> Client | None:
    """The client that `request` asks about; None: about none. Raises UnknownClient."""
    if not request.client:
        return None
    client = client_at(world, request.client, request.namespace)
    if client is None:
        raise UnknownClient(f"neither outside nor a node nor a pod: {request.client}")
    return client


def outcomes_of(world: World, service: Service, client: Client | None) -> Iterator[pb.Outcome]:
    """For each address that the service has at the client's node."""
    for one in outcomes(world, service, client) if client is not None else ():
        assert client is not None
        place = one.claim.place
        yield pb.Outcome(
            address=str(place.address),
            port=place.number,
            protocol=place.protocol,
            port_name=one.claim.port.name,
            origin=one.claim.origin.name.lower().replace("_", "-"),
            gets=one.gets,
            endpoints=[
                pb.Behind(
                    address=str(address),
                    port=port,
                    seen_as=seen_as(world, service, client, one.claim, address),
                )
                for address, port in one.endpoints
            ],
            only_from=one.only_from,
        )
