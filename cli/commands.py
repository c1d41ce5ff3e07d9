"""What each command asks and shows; the exit code is its judgement."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message

from weft.cli import listings
from weft.cli.client import TIMEOUT_S, daemon, items
from weft.cli.failure import FAILED_CHECK, Failure
from weft.cli.flows import watch
from weft.cli.output import plain, print_document, print_listing, print_table
from weft.cli.text import columns, duration, neutral, terminal_width
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.api.weft_pb2_grpc import WeftStub

Command = Callable[[WeftStub, argparse.Namespace], int]


def run(arguments: argparse.Namespace) -> int:
    """The command that `arguments` name, against the daemon at their socket."""
    with daemon(arguments.socket) as stub:
        return _COMMANDS[arguments.command](stub, arguments)


def _request(arguments: argparse.Namespace) -> pb.ListRequest:
    """NAME may be namespace/name, which wins over --namespace."""
    namespace, _, name = arguments.name.rpartition("/")
    return pb.ListRequest(namespace=namespace or getattr(arguments, "namespace", ""), name=name)


def _shown(
    listing: listings.Listing, messages: Sequence[Message], arguments: argparse.Namespace
) -> int:
    if arguments.name and not messages:
        raise _nothing(arguments)
    print_listing(listing, messages, arguments.output)
    return 0


def _nothing(arguments: argparse.Namespace) -> Failure:
    return Failure(
        f"no {arguments.command} named {arguments.name}",
        "the API has not told this daemon of it, or it was deleted",
        f"weft {arguments.command} lists all; weft status says what has not been listed yet",
        FAILED_CHECK,
    )


def _services(stub: WeftStub, arguments: argparse.Namespace) -> int:
    request = _request(arguments)
    request.client = arguments.client
    found = items(stub.ListServices(request, timeout=TIMEOUT_S))
    if arguments.client and found and arguments.output != "json":
        wide = arguments.output == "wide"
        print_table(listings.OUTCOMES, listings.outcomes(found), wide=wide)
        return 0
    if not arguments.name or not found:
        return _shown(listings.SERVICES, found, arguments)
    behind = items(stub.ListEndpoints(request, timeout=TIMEOUT_S))
    if arguments.output == "json":
        documents = [_with_endpoints(service, behind) for service in found]
        print_document(listings.SERVICES.kind, {"items": documents})
        return 0
    print_listing(listings.SERVICES, found, arguments.output)
    print()
    print_table(listings.FRONTENDS, listings.frontends(found), wide=arguments.output == "wide")
    print()
    print_listing(listings.ENDPOINTS, behind, arguments.output)
    return 0


def _with_endpoints(service: pb.Service, behind: list[pb.Endpoint]) -> dict[str, object]:
    name = (service.namespace, service.name)
    own = [plain(endpoint) for endpoint in behind if (endpoint.namespace, endpoint.service) == name]
    return {**plain(service), "endpoints": own}


def _endpoints(stub: WeftStub, arguments: argparse.Namespace) -> int:
    found = items(stub.ListEndpoints(_request(arguments), timeout=TIMEOUT_S))
    return _shown(listings.ENDPOINTS, found, arguments)


def _workloads(stub: WeftStub, arguments: argparse.Namespace) -> int:
    found = items(stub.ListWorkloads(_request(arguments), timeout=TIMEOUT_S))
    return _shown(listings.WORKLOADS, found, arguments)


def _policy(stub: WeftStub, arguments: argparse.Namespace) -> int:
    found = items(stub.ListPolicies(_request(arguments), timeout=TIMEOUT_S))
    return _shown(listings.POLICIES, found, arguments)


def _nodes(stub: WeftStub, arguments: argparse.Namespace) -> int:
    found = items(stub.ListNodes(_request(arguments), timeout=TIMEOUT_S))
    return _shown(listings.NODES, found, arguments)


def _drops(stub: WeftStub, arguments: argparse.Namespace) -> int:
    request = pb.ListCountersRequest(drops_only=not arguments.all)
    found = stub.ListCounters(request, timeout=TIMEOUT_S).items
    if not found and arguments.output != "json":
        print("nothing was dropped")
        return 0
    print_listing(listings.COUNTERS, found, arguments.output)
    return 0


def _dump(stub: WeftStub, arguments: argparse.Namespace) -> int:
    request = pb.CompareTablesRequest(tables=arguments.table, all_rows=arguments.all)
    rows = items(stub.CompareTables(request, timeout=TIMEOUT_S))
    differing = [row for row in rows if row.difference != pb.TableRow.EQUAL]
    if not rows and arguments.output != "json":
        print("the kernel holds exactly what the plan says")
        return 0
    print_listing(listings.ROWS, rows, arguments.output)
    return FAILED_CHECK if differing else 0


def _flows(stub: WeftStub, arguments: argparse.Namespace) -> int:
    return watch(stub, arguments)


def _status(stub: WeftStub, arguments: argparse.Namespace) -> int:
    status = stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    if arguments.output == "json":
        print_document("NodeStatus", plain(status))
    else:
        _print_status(status, wide=arguments.output == "wide")
    return 0 if status.healthy else FAILED_CHECK


def _print_status(status: pb.NodeStatus, *, wide: bool) -> None:
    up_s = time.time() - status.started.ToMilliseconds() / 1000
    verdict = "in order" if status.healthy else "NOT in order"
    print(neutral(f"{status.node}: {verdict}; up {duration(max(0.0, up_s))}, {status.stage}"))
    print(neutral(f"weft {status.version}, mode {status.mode}, Linux {status.kernel}"))
    print()
    width = None if wide else terminal_width()
    checks = [(c.name, _result(c), c.message) for c in status.checks]
    print("\n".join(columns(("check", "result", "message"), checks, width=width)))
    print()
    uses = [_use(use) for use in status.tables if wide or use.rows or use.pending or use.errors]
    print("\n".join(columns(("table", "rows", "of", "pending", "errors"), uses, width=width)))
    if status.unfinished:
        print()
        print_listing(listings.UNFINISHED, status.unfinished, "wide" if wide else "table")


def _result(check: pb.Check) -> str:
    if not check.passed:
        return "FAILED"
    return "warning" if check.message else "ok"


def _use(use: pb.TableUse) -> tuple[str, ...]:
    limit = f"{use.max_entries:,}" if use.max_entries else ""
    return use.name, f"{use.rows:,}", limit, str(use.pending), str(use.errors)


_COMMANDS: Mapping[str, Command] = {
    "status": _status,
    "services": _services,
    "endpoints": _endpoints,
    "workloads": _workloads,
    "policy": _policy,
    "nodes": _nodes,
    "flows": _flows,
    "drops": _drops,
    "dump": _dump,
}
