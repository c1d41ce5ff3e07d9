"""Flow records: the datapath's events with names, for every client that watches.

Owns the clients' queues and what is lost in them. Events are named only while somebody watches. A
client that is too slow loses the newest events, is told how many, and slows nobody else.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from weft.bpf.layout import UNSPECIFIED, Event, Reason
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.model.objects import PROTOCOL_NUMBERS
from weft.proxy.model.objects import Protocol as Transport
from weft.proxy.model.world import World
from weft.proxy.observe import names
from weft.proxy.observe.counters import direction_name, is_drop, reason_name
from weft.proxy.observe.verdict import Verdict, explain

QUEUE_EVENTS = 4096
BACKLOG_EVENTS = 16_384
"""Read from the ring but not named yet: 8 MB of events."""
SHARE_EVENTS = 64
"""Named without a pause: 3 ms of policy drops."""
_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
_PROTOCOLS = {number: str(name) for name, number in PROTOCOL_NUMBERS.items()} | {
    1: "ICMP",
    58: "ICMPv6",
}
_POLICY = (Reason.POLICY_INGRESS, Reason.POLICY_EGRESS)


class EventSource(Protocol):
    """Where the datapath's events come from (weft.proxy.ring)."""

    def subscribe(self, take: Callable[[Sequence[Event]], None]) -> Callable[[], None]:
        """Hand every event from now on to `take`, until what is returned is called."""


@dataclass(slots=True, eq=False)
class _Client:
    request: pb.WatchFlowsRequest
    queue: "asyncio.Queue[pb.Flow]" = field(default_factory=lambda: asyncio.Queue(QUEUE_EVENTS))
    lost: int = 0


class Flows:
    """Hands events to the clients that watch. `lost` is called with each number of lost events."""

    def __init__(
        self, world: Callable[[], World], source: EventSource, lost: Callable[[int], None]
    ) -> None:
        self._world, self._source, self._lost = world, source, lost
        self._clients: set[_Client] = set()
        self._backlog: deque[Event] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    async def watch(self, request: pb.WatchFlowsRequest) -> AsyncGenerator[pb.FlowEvent, None]:
        """Everything from now on that `request` asks for, until the caller stops."""
        client = _Client(request)
        self._join(client)
        try:
            while True:
                flow = await client.queue.get()
                if client.lost:
                    lost, client.lost = client.lost, 0
                    yield pb.FlowEvent(lost=lost)
                yield pb.FlowEvent(flow=flow)
        finally:
            self._leave(client)

    def _join(self, client: _Client) -> None:
        if not self._clients:
            self._unsubscribe = self._source.subscribe(self._take)
        self._clients.add(client)

    def _leave(self, client: _Client) -> None:
        self._clients.discard(client)
        if not self._clients:
            self._unsubscribe()
            self._backlog.clear()

    def _take(self, events: Sequence[Event]) -> None:
        """Hand out what is there, in a task: a storm of drops must not hold the event loop."""
        room = BACKLOG_EVENTS - len(self._backlog)
        self._backlog.extend(events[:room])
        if room < len(events):
            self._lose(len(events) - room)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._hand_out())

    def _lose(self, events: int) -> None:
        self._lost(events)
        for client in self._clients:
            client.lost += events

    async def _hand_out(self) -> None:
        while self._backlog:
            share = min(SHARE_EVENTS, len(self._backlog))
            self._name([self._backlog.popleft() for _ in range(share)])
            await asyncio.sleep(0)

    def _name(self, events: Sequence[Event]) -> None:
        world = self._world()
        for event in events:
            flow = record(world, event)
            for client in self._clients:
                if _wants(client.request, flow):
                    self._hand(client, flow)

    def _hand(self, client: _Client, flow: pb.Flow) -> None:
        try:
            client.queue.put_nowait(flow)
        except asyncio.QueueFull:
            client.lost += 1
            self._lost(1)


def _wants(request: pb.WatchFlowsRequest, flow: pb.Flow) -> bool:
    if request.drops_only and not flow.dropped:
        return False
    return any(_is(request, end) for end in (flow.source, flow.destination, flow.dialled))


def _is(request: pb.WatchFlowsRequest, end: pb.FlowEnd) -> bool:
    namespace, _, name = end.name.rpartition("/")
    if request.namespace and namespace != request.namespace:
        return False
    return not request.pod or (end.kind == "pod" and name == request.pod)


def record(world: World, event: Event) -> pb.Flow:
    """One event with the names of now."""
    packet = event.tuple
    verdict = _verdict(world, event)
    flow = pb.Flow(
        time=_wall_time(event.time_ns),
        dropped=is_drop(event.reason),
        reason=reason_name(event.reason),
        direction=direction_name(event.direction),
        protocol=_PROTOCOLS.get(packet.proto, str(packet.proto)),
        source=names.end(world, packet.src, packet.sport),
        destination=names.end(world, packet.dst, packet.dport),
        tcp_flags=_tcp_flags(event.tcp_flags) if packet.proto == _TCP else "",
        bytes=event.bytes,
        link=_link(world, event.ifindex),
        policies=verdict.policies,
        explanation=verdict.explanation,
    )
    if event.vip != UNSPECIFIED:
        flow.dialled.CopyFrom(names.end(world, event.vip, event.vip_port))
    return flow


_TCP = PROTOCOL_NUMBERS[Transport.TCP]


def _verdict(world: World, event: Event) -> Verdict:
    return explain(world, event) if event.reason in _POLICY else Verdict()


def _wall_time(monotonic_ns: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(time.time_ns() - (time.monotonic_ns() - monotonic_ns))
    return stamp


def _tcp_flags(bits: int) -> str:
    return " ".join(name for place, name in enumerate(_TCP_FLAGS) if bits & 1 << place)


def _link(world: World, ifindex: int) -> str:
    """The link's name; a pod's link is named by its workload."""
    named = ((link.name, link.ifindex) for link in world.links())
    pods = ((workload.key, workload.ifindex) for workload in world.workloads())
    return next((name for name, index in chain(named, pods) if index == ifindex), "")
