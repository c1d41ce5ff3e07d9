"""The `weft` command: what one node's daemon says, from its kernel.

Owns arguments, exit codes and how errors are told. Exit codes: 0 in order, 1 a check failed or
what was asked for is not there, 2 usage, 3 the daemon cannot be reached, 130 interrupted.
Imports nothing heavy before it knows what to do: --help must come at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from weft.cli.failure import Failure

SOCKET = "/run/weft/weft.sock"
EPILOG = """\
exit codes: 0 in order, 1 a check failed or nothing of that name, 2 usage, 3 daemon not reached
A NAME may carry its namespace: weft services default/web"""

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Raises SystemExit for usage errors and --help."""
    arguments = _parser().parse_args(argv)
    try:
        from weft.cli.commands import run

        return run(arguments)
    except Failure as failure:
        print(failure.text(), file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has what it wanted; without this Python complains when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    socket = os.environ.get("WEFT_SOCKET") or SOCKET
    common.add_argument("--socket", default=socket, help=f"of the daemon (default: {socket})")
    common.add_argument("-o", "--output", choices=("table", "wide", "json"), default="table")
    parser = argparse.ArgumentParser(
        "weft",
        description="What this node's network is and does, read from its kernel.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # A default would overwrite what stands before the command.
    again = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    again.add_argument("--socket", help="of the daemon")
    again.add_argument("-o", "--output", choices=("table", "wide", "json"))
    for name, text in (
        ("status", "is everything in the kernel that should be?"),
        ("services", "what Services lead to"),
        ("endpoints", "what is behind Services, or behind one"),
        ("workloads", "this node's pods and what judges them"),
        ("policy", "NetworkPolicies and the pods that they judge here"),
        ("nodes", "the cluster's nodes and the way to their pods"),
        ("flows", "what flows and what is dropped, as it happens"),
        ("drops", "packets dropped, by reason"),
        ("dump", "the kernel's tables against a plan made afresh (changes wait meanwhile)"),
    ):
        _add_options(name, commands.add_parser(name, help=text, parents=[again]))
    return parser


def _add_options(name: str, command: argparse.ArgumentParser) -> None:
    if name in ("services", "endpoints", "workloads", "policy"):
        command.add_argument("-n", "--namespace", default="", help="only of this namespace")
    if name in ("services", "endpoints", "workloads", "policy", "nodes"):
        command.add_argument("name", nargs="?", default="", metavar="NAME", help="only this one")
    if name == "services":
        command.add_argument("--from", default="", dest="client", metavar="CLIENT",
                             help="what a client gets: outside, a node or a pod")  # fmt: skip
    if name == "drops":
        command.add_argument("--all", action="store_true", help="what went on, too")
    if name == "dump":
        command.add_argument("--table", action="append", default=[], help="only this table")
        command.add_argument("--all", action="store_true", help="equal rows too")
    if name == "flows":
        command.add_argument("-f", "--follow", action="store_true", help="until interrupted")
        command.add_argument("--for", type=float, default=5.0, dest="for_s", metavar="SECONDS",
                             help="how long to watch without -f (default: 5)")  # fmt: skip
        command.add_argument("--count", type=int, default=0, help="stop after this many")
        command.add_argument("--drops", action="store_true", help="only what was dropped")
        command.add_argument("-n", "--namespace", default="", help="with an end in this namespace")
        command.add_argument("--pod", default="", help="with this pod at an end")


if __name__ == "__main__":
    sys.exit(main())
