"""`weft flows`: one line per flow as it happens, or one JSON document per line."""

import argparse
import sys

import grpc

from weft.cli.listings import at, joined
from weft.cli.output import plain, print_document
from weft.cli.text import neutral
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.api.weft_pb2_grpc import WeftStub


def watch(stub: WeftStub, arguments: argparse.Namespace) -> int:
    """Print flows until interrupted, until --count, or without -f until --for has passed."""
    request = pb.WatchFlowsRequest(
        drops_only=arguments.drops, namespace=arguments.namespace, pod=arguments.pod
    )
    call = stub.WatchFlows(request, timeout=None if arguments.follow else arguments.for_s)
    shown = 0
    try:
        for event in call:
            if event.WhichOneof("event") == "lost":
                print(f"{event.lost} events were lost: too many at once", file=sys.stderr)
                continue
            _show(event.flow, arguments.output)
            shown += 1
            if shown == arguments.count:
                break
    except grpc.RpcError as error:
        if arguments.follow or error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
    finally:
        call.cancel()  # type: ignore[no-untyped-call]
    return 0


def _show(flow: pb.Flow, output: str) -> None:
    if output == "json":
        print_document("Flow", plain(flow), indent=None)
    else:
        print(line(flow, wide=output == "wide"), flush=True)


def line(flow: pb.Flow, *, wide: bool) -> str:
    """Time, verdict, protocol, ends, reason, and for a policy drop which policies and why."""
    when = flow.time.ToDatetime().strftime("%H:%M:%S.%f")[:-3]
    verdict = "DROPPED" if flow.dropped else "FORWARDED"
    dialled = f" ({end(flow.dialled)})" if flow.HasField("dialled") else ""
    parts = [
        f"{when} {verdict} {flow.protocol}",
        f"{end(flow.source)} -> {end(flow.destination)}{dialled}",
        flow.reason,
    ]
    unnamed = [policy for policy in flow.policies if policy not in flow.explanation]
    if unnamed:
        parts.append(f"by {joined(unnamed)}")
    if flow.explanation:
        parts.append(flow.explanation)
    if wide:
        parts.append(f"{flow.direction} {flow.link} {flow.bytes} bytes {flow.tcp_flags}".rstrip())
    return neutral("  ".join(parts))


def end(of: pb.FlowEnd) -> str:
    """default/web(10.1.0.3):80, or the address alone where nobody has it."""
    if not of.name:
        return at(of.address, of.port)
    port = f":{of.port}" if of.port else ""
    return f"{of.name}({of.address}){port}"
