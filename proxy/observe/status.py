"""Whether this node is in order: checks with a reason and a remedy each, and the tables' use."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import islice

from google.protobuf.timestamp_pb2 import Timestamp

from weft.bpf.layout import TABLES
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.apply.desired import RowKey
from weft.proxy.apply.gate import Stage
from weft.proxy.apply.ledger import State, Status
from weft.proxy.loop import View
from weft.proxy.model.world import World
from weft.proxy.observe.reading import status_message
from weft.proxy.observe.tables import PLANNED, key_text
from weft.proxy.plan.reach import Nowhere, reaches
from weft.proxy.plan.shares import every_beyond

_SHOWN_ROWS = 20
_LATE_S = 5.0
"""An event that waits longer than this is worth a person's look."""
_FULL = 0.9


def weft_version() -> str:
    """Of the installed distribution; a checkout has none."""
    try:
        return version("weft")
    except PackageNotFoundError:
        return "checkout"


Troubles = Callable[[], Mapping[str, str]]
"""What keeps each source of intent from being read now, with the reason; empty: nothing."""


class NodeReport:
    """Makes `weft status`. Remembers only when the daemon started.

    refused: the healthCheckNodePorts that cannot be listened at, with the reason. lacks: what the
    kernel has not, and what follows from it.
    """

    def __init__(
        self, view: View, troubles: Troubles, refused: Troubles, lacks: Sequence[str] = ()
    ) -> None:
        self._view, self._troubles, self._refused, self._lacks = view, troubles, refused, lacks
        self._started = datetime.now(UTC)

    async def status(self) -> pb.NodeStatus:
        """Everything in one message."""
        view = self._view
        unfinished = await view.unfinished()
        checks = [*self._checks(unfinished), await self._conflicts()]
        started = Timestamp()
        started.FromDatetime(self._started)
        return pb.NodeStatus(
            node=view.world.settings.node,
            version=weft_version(),
            mode=view.world.settings.mode,
            kernel=platform.release(),
            stage=view.stage,
            started=started,
            healthy=all(check.passed for check in checks),
            checks=checks,
            tables=list(_tables(view, unfinished)),
            unfinished=list(_oldest(unfinished)),
        )

    def _checks(self, unfinished: Mapping[RowKey, Status]) -> Iterator[pb.Check]:
        yield _check("sources", self._sources())
        yield _check("events", self._events())
        yield _check("plan", self._plan())
        yield _check("rows", _rows(unfinished))
        yield _check("tables", _room(self._view))
        yield _check("objects", self._objects())
        yield _check("node", self._node())
        yield pb.Check(name="reach", passed=True, message=_unreached(self._view.world))
        yield _check("repairs", self._repairs())
        yield _check("health-checks", self._health_checks())
        yield pb.Check(name="shares", passed=True, message=_beyond(self._view.world))
        yield pb.Check(name="kernel", passed=True, message="; ".join(self._lacks))

    def _sources(self) -> str:
        troubles = [f"{source}: {why}" for source, why in sorted(self._troubles().items())]
        if self._view.stage is not Stage.LISTED:
            troubles.insert(0, f"not listed yet: {', '.join(self._view.waits_for)}")
        return _listed(troubles, "the kernel keeps what was last known")

    def _events(self) -> str:
        since_s = self._view.queued_since_s
        waits_s = time.monotonic() - since_s if since_s is not None else 0.0
        return f"the oldest event waits for {waits_s:.0f} s" if waits_s > _LATE_S else ""

    def _plan(self) -> str:
        keys = [f"{planner} {key}" for planner, key in self._view.failed]
        return _listed(keys, "a bug of Weft: the daemon's log has it, earlier rows stay")

    def _objects(self) -> str:
        broken = [f"{kind} {key}: {why}" for (kind, key), why in self._view.broken.items()]
        world = self._view.world
        broken += [f"policy {p.ref}: {p.broken}" for p in world.policies() if p.broken]
        broken += [f"service {s.ref}: {s.broken}" for s in world.services() if s.broken]
        return _listed(broken, "not understood, what worked stays")

    def _node(self) -> str:
        if not self._view.node_deleted:
            return ""
        return "the Node object was deleted: what it said last holds until it is made anew"

    def _repairs(self) -> str:
        items = [f"{what}: {why}" for what, why in sorted(self._view.unmended.items())]
        return _listed(items, "another hand altered what the node needs")

    def _health_checks(self) -> str:
        items = [f"{service}: {why}" for service, why in self._refused().items()]
        return _listed(items, "load balancers do not find this node, free the port")

    async def _conflicts(self) -> pb.Check:
        places = await self._view.conflicts()
        rows = [f"{table} {key_text(table, key)}" for table, key in places]
        return _check("conflicts", _listed(rows, "wanted differently by several planner keys"))


def _unreached(world: World) -> str:
    """A warning only: in modes without a tunnel the network between nodes may route pods."""
    others = (node for node in world.nodes() if node.ref.name != world.settings.node)
    ways = (way for node in others for _, way in reaches(world, node))
    whys = dict.fromkeys(way.why for way in ways if isinstance(way, Nowhere))
    return _listed(
        list(whys), "there are pods that Weft has no way to, the network must route them"
    )


def _beyond(world: World) -> str:
    """A warning only: else a tenant could have every node look broken."""
    items = [f"service {ref}: {why}" for ref, why in sorted(every_beyond(world))]
    return _listed(items, "not served, the rest of the cluster is")


def _check(name: str, trouble: str) -> pb.Check:
    return pb.Check(name=name, passed=not trouble, message=trouble)


def _rows(unfinished: Mapping[RowKey, Status]) -> str:
    """Pending rows are the loop's ordinary work until the sources have listed."""
    errors = [
        f"{table} {key_text(table, key)}: {status.reason}"
        for (table, key), status in unfinished.items()
        if status.state is State.ERROR
    ]
    return _listed(errors, "refused by the kernel, tried again")


def _room(view: View) -> str:
    tight = [
        f"{use.name} holds {use.rows:,} of {use.max_entries:,} rows"
        for use in _uses(view)
        if use.max_entries and use.rows > _FULL * use.max_entries
    ]
    return _listed(tight, "raise table-sizes")


def _listed(items: list[str], remark: str) -> str:
    if not items:
        return ""
    more = f" and {len(items) - 3:,} more" if len(items) > 3 else ""
    return f"{remark}: {'; '.join(items[:3])}{more}"


def _uses(view: View) -> Iterable[pb.TableUse]:
    for name in sorted(PLANNED):
        spec = TABLES.get(name)
        # A settings array is full by nature.
        entries = view.tables[name].max_entries if spec and name in view.tables else 0
        bounded = entries if entries > 1 else 0
        yield pb.TableUse(name=name, rows=view.row_count(name), max_entries=bounded)


def _tables(view: View, unfinished: Mapping[RowKey, Status]) -> Iterator[pb.TableUse]:
    for use in _uses(view):
        states = [status.state for place, status in unfinished.items() if place.table == use.name]
        use.pending = states.count(State.PENDING)
        use.errors = states.count(State.ERROR)
        yield use


def _oldest(unfinished: Mapping[RowKey, Status]) -> Iterator[pb.TableRow]:
    now_s = time.monotonic()
    by_age = sorted(unfinished.items(), key=lambda item: item[1].since_s)
    for (table, key), status in islice(by_age, _SHOWN_ROWS):
        row = pb.TableRow(table=table, key=key_text(table, key))
        row.status.CopyFrom(status_message(status, now_s))
        yield row
