"""The lab's commands: bring a cluster up, take it down, speak to it, step into a node.

usage: python -m deploy.lab up|down|kubectl|exec|binaries (or `make cluster`, ...).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from deploy.lab import binaries, cluster, controlplane, node, spec
from deploy.lab.spec import Cluster, Network, Shape


def _kubectl() -> Path:
    return binaries.collect(binaries.KUBERNETES)["kubectl"]


def _exec(argv: list[str]) -> None:
    sys.stdout.flush()
    os.execvp(argv[0], argv)


def _into_node(of: Cluster, name: str, command: list[str]) -> None:
    found = {n.name: n for n in of.nodes()}
    if name not in found:
        raise LookupError(f"cluster {of.name} has no node {name}: {', '.join(found)}")
    words = command[command[:1] == ["--"] :] or ["/bin/bash"]
    _exec([*node.find(found[name]).words(), *words])


def _setting(word: str) -> tuple[str, str]:
    key, is_pair, value = word.partition("=")
    if not is_pair:
        raise argparse.ArgumentTypeError(f"{word}: KEY=VALUE is wanted")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.lab", description=__doc__)
    parser.add_argument(
        "--name", default=spec.default_name(), help="default: $WEFT_CLUSTER or weft"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up_words = commands.add_parser("up", help="bring a cluster up")
    up_words.add_argument("--nodes", type=int, default=2)
    up_words.add_argument("--shape", type=Shape, choices=list(Shape), default=Shape.PLAIN)
    up_words.add_argument("--network", type=Network, choices=list(Network), default=Network.WEFT)
    up_words.add_argument(
        "--set", action="append", default=[], type=_setting, help="KEY=VALUE of Weft's ConfigMap"
    )
    commands.add_parser("reload", help="put Weft's image and manifest of now into it")
    commands.add_parser("down", help="remove it, also after a crash")
    commands.add_parser("binaries", help="build what is missing, link it into build/lab/bin")
    kubectl = commands.add_parser("kubectl", help="run kubectl on it as administrator")
    kubectl.add_argument("words", nargs=argparse.REMAINDER)
    inside = commands.add_parser("exec", help="run a command inside a node")
    inside.add_argument("node")
    inside.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def main() -> None:
    """Runs one command; an error is one line that says what to do."""
    options = _parser().parse_args()
    try:
        _run(options)
    except (RuntimeError, LookupError, OSError) as error:
        state = Cluster(options.name, 0, Shape.PLAIN, Network.NONE).state
        sys.exit(f"lab: {error}\nlogs: {state}/log and {state}/n*/var/log; of pods: make kubectl")


def _run(options: argparse.Namespace) -> None:
    if options.command == "up":
        size = (options.nodes, options.shape, options.network)
        cluster.up(Cluster(options.name, *size, dict(options.set)))
    elif options.command == "down":
        cluster.down(options.name)
    elif options.command == "binaries":
        binaries.link(binaries.collect(), cluster.BUILD / "lab" / "bin")
    elif options.command == "kubectl":
        _exec([*controlplane.kubectl_words(spec.load(options.name), _kubectl()), *options.words])
    elif options.command == "reload":
        cluster.reload(spec.load(options.name), _kubectl())
    else:
        _into_node(spec.load(options.name), options.node, options.words)


if __name__ == "__main__":
    main()
