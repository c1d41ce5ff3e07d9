"""What each listing shows: its columns, once, for table and wide output."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from weft.cli.text import duration
from weft.proxy.api import weft_pb2 as pb


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `wide` ones show with -o wide only. `cell` takes one of the listing's items."""

    title: str
    cell: Callable[[Any], str]
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """kind: of the JSON document; columns: the last one gives way in narrow terminals."""

    kind: str
    columns: tuple[Column, ...]

    def shown(self, *, wide: bool) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if wide or not column.wide)


def state(status: pb.RowStatus) -> str:
    """done, or what is wrong and since when."""
    if status.state == pb.RowStatus.DONE:
        return "done"
    name = pb.RowStatus.State.Name(status.state).lower()
    age = f" for {duration(status.age_s)}" if status.age_s >= 1 else ""
    return f"{name}{age}: {status.reason}"


def joined(items: Iterable[str]) -> str:
    return ",".join(items)


def at(address: str, port: int) -> str:
    """An address with its port, as URLs write it (RFC 3986)."""
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{port}" if port else address


def _ports(service: pb.Service) -> str:
    return joined(f"{p.port}/{p.protocol}{f'({p.name})' if p.name else ''}" for p in service.ports)


def _endpoints(service: pb.Service) -> str:
    """Of the family with the fewest, port by port: what a client may run into."""
    served = ([f for f in port.frontends if not f.not_served] for port in service.ports)
    return joined(str(min((f.endpoints for f in of_port), default=0)) for of_port in served)


def _policies(service: pb.Service) -> str:
    """Where clients inside and outside are kept to their node's endpoints."""
    said = {
        "inside": service.internal_traffic_policy,
        "outside": service.external_traffic_policy,
    }
    return joined(f"{who}: {policy}" for who, policy in said.items() if policy)


class Reached(NamedTuple):
    """One frontend with the port of the Service that it leads to."""

    service: pb.Service
    port: pb.ServicePort
    frontend: pb.Frontend


def frontends(services: Iterable[pb.Service]) -> list[Reached]:
    """Every address and port by which the services are, or would be, reached."""
    return [
        Reached(service, port, frontend)
        for service in services
        for port in service.ports
        for frontend in port.frontends
    ]


class Outcome(NamedTuple):
    """One endpoint that a client gets at one address of a Service; None: it gets none there."""

    service: pb.Service
    outcome: pb.Outcome
    behind: pb.Behind | None


def outcomes(services: Iterable[pb.Service]) -> list[Outcome]:
    """A line for each endpoint, and for each address that has none for the client."""
    return [
        Outcome(service, outcome, behind)
        for service in services
        for outcome in service.outcomes
        for behind in outcome.endpoints or (None,)
    ]


_GETS = {
    "refused": "refused: no endpoint",
    "silence": "dropped: policy Local, none on that node",
    "not-in-ranges": "dropped: not in loadBalancerSourceRanges",
    "nothing": "not for this client",
}


def _gets(one: Outcome) -> str:
    if one.behind is not None:
        only = one.outcome.only_from
        told = f" (only from {joined(only)})" if only else ""
        return at(one.behind.address, one.behind.port) + told
    return _GETS.get(one.outcome.gets, one.outcome.gets)


def _spread(frontend: pb.Frontend) -> str:
    """How many endpoints clients get; where those outside get others, both."""
    inside, outside = frontend.endpoints, frontend.outside_endpoints
    return str(inside) if inside == outside else f"{inside}, from outside {outside}"


def _serving(reached: Reached) -> str:
    why = reached.frontend.not_served
    return f"not served: {why}" if why else state(reached.frontend.status)


def _service_state(service: pb.Service) -> str:
    served = state(service.status)
    return f"{served}; not understood: {service.broken}" if service.broken else served


def _chosen(endpoint: pb.Endpoint) -> str:
    chosen = "yes" if endpoint.chosen else "no"
    return f"{chosen}: {endpoint.unused}" if endpoint.unused else chosen


def _conditions(endpoint: pb.Endpoint) -> str:
    named = ("ready", "serving", "terminating")
    return joined(name for name in named if getattr(endpoint, name))


def _isolation(isolation: pb.Isolation) -> str:
    return joined(isolation.policies) or "isolated" if isolation.isolated else "open"


def _directions(policy: pb.Policy) -> str:
    return joined(name for name in ("ingress", "egress") if getattr(policy, name))


def _reached(node: pb.Node) -> str:
    """One way where both families have the same."""
    ways = {f"IPv{6 if ':' in item.cidr else 4}": _way(item) for item in node.pod_ranges}
    if len(set(ways.values())) == 1:
        return next(iter(ways.values()))
    return ", ".join(f"{family} {way}" for family, way in ways.items())


def _way(item: pb.Range) -> str:
    match item.way:
        case "direct":
            return f"direct by {item.link}"
        case "tunnel":
            return f"tunnel to {item.via}"
        case way:
            return way or "not in the kernel"


def _whys(node: pb.Node) -> str:
    return "; ".join(dict.fromkeys(item.why for item in node.pod_ranges if item.why))


SERVICES = Listing(
    "ServiceList",
    (
        Column("namespace", lambda s: s.namespace),
        Column("name", lambda s: s.name),
        Column("type", lambda s: s.type),
        Column("cluster-ip", lambda s: joined(s.cluster_ips)),
        Column("ports", _ports),
        Column("endpoints", _endpoints),
        Column("policies", _policies, wide=True),
        Column("affinity", lambda s: duration(s.affinity_s) if s.affinity_s else "", wide=True),
        Column("status", _service_state),
    ),
)
FRONTENDS = Listing(
    "FrontendList",
    (
        Column("namespace", lambda r: r.service.namespace),
        Column("service", lambda r: r.service.name),
        Column("kind", lambda r: r.frontend.origin),
        Column("address", lambda r: at(r.frontend.address, r.frontend.port)),
        Column("port", lambda r: f"{r.port.name or '-'}/{r.port.protocol}"),
        Column("endpoints", lambda r: _spread(r.frontend)),
        Column("status", _serving),
    ),
)
OUTCOMES = Listing(
    "OutcomeList",
    (
        Column("namespace", lambda o: o.service.namespace),
        Column("service", lambda o: o.service.name),
        Column("kind", lambda o: o.outcome.origin),
        Column("address", lambda o: at(o.outcome.address, o.outcome.port)),
        Column("port", lambda o: f"{o.outcome.port_name or '-'}/{o.outcome.protocol}"),
        Column("gets", _gets),
        Column("seen-as", lambda o: o.behind.seen_as if o.behind is not None else ""),
    ),
)
ENDPOINTS = Listing(
    "EndpointList",
    (
        Column("namespace", lambda e: e.namespace),
        Column("service", lambda e: e.service),
        Column("port", lambda e: f"{e.port_name or '-'}/{e.protocol}", wide=True),
        Column("address", lambda e: at(e.address, e.port)),
        Column("pod", lambda e: e.pod),
        Column("node", lambda e: e.node),
        Column("conditions", _conditions),
        Column("zone", lambda e: e.zone, wide=True),
        Column("chosen", _chosen),
        Column("status", lambda e: state(e.status)),
    ),
)
WORKLOADS = Listing(
    "WorkloadList",
    (
        Column("namespace", lambda w: w.namespace),
        Column("name", lambda w: w.name),
        Column("addresses", lambda w: joined(w.addresses)),
        Column("link", lambda w: f"{w.link}({w.ifindex})", wide=True),
        Column("mac", lambda w: w.mac, wide=True),
        Column("ingress", lambda w: _isolation(w.ingress)),
        Column("egress", lambda w: _isolation(w.egress)),
        Column("ingress-set", lambda w: w.ingress.rule_set, wide=True),
        Column("egress-set", lambda w: w.egress.rule_set, wide=True),
        Column("stack", lambda w: joined(w.stack), wide=True),
        Column("socket-hook", lambda w: "off" if w.own_sockets else "on", wide=True),
        Column("status", lambda w: state(w.status)),
    ),
)
POLICIES = Listing(
    "PolicyList",
    (
        Column("namespace", lambda p: p.namespace),
        Column("name", lambda p: p.name),
        Column("isolates", _directions),
        Column("workloads", lambda p: str(len(p.workloads))),
        Column("names", lambda p: joined(p.workloads), wide=True),
        Column("status", lambda p: f"broken: {p.broken}" if p.broken else state(p.status)),
    ),
)
NODES = Listing(
    "NodeList",
    (
        Column("name", lambda n: n.name + (" (this one)" if n.own else "")),
        Column("addresses", lambda n: joined(n.addresses)),
        Column("pod-ranges", lambda n: joined(r.cidr for r in n.pod_ranges)),
        Column("reached", _reached),
        Column("why", _whys, wide=True),
        Column("status", lambda n: state(n.status)),
    ),
)
COUNTERS = Listing(
    "CounterList",
    (
        Column("reason", lambda c: c.reason),
        Column("direction", lambda c: c.direction),
        Column("packets", lambda c: f"{c.packets:,}"),
        Column("bytes", lambda c: f"{c.bytes:,}"),
        Column("meaning", lambda c: c.meaning),
    ),
)
ROWS = Listing(
    "TableRowList",
    (
        Column("table", lambda r: r.table),
        Column("difference", lambda r: pb.TableRow.Difference.Name(r.difference).lower()),
        Column("key", lambda r: r.key),
        Column("status", lambda r: state(r.status), wide=True),
        Column("wanted", lambda r: r.desired),
        Column("in the kernel", lambda r: r.actual),
    ),
)
UNFINISHED = Listing(
    "TableRowList",
    (
        Column("table", lambda r: r.table),
        Column("key", lambda r: r.key),
        Column("status", lambda r: state(r.status)),
    ),
)
