"""Owns how a node is left as if Weft had never been on it: `weftd --cleanup`.

For a node that is drained, with no daemon running: what pods still hang on is not taken from them.
Removed are the conflist, hooks, links, routes, nftables' table and pins of ours, and the leases.
Sysctls stay as they are, and so do the two rules in FORWARD chains, which name links that no longer
are. Never touches what another program made.
"""

import logging
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from weft.bpf import pins
from weft.bpf.features import probe
from weft.bpf.hook import Hooks
from weft.cni import conflist
from weft.proxy.apply.hooks import HooksTarget, find_cgroup2
from weft.proxy.apply.links import LinksTarget
from weft.proxy.apply.nft import NftTarget
from weft.proxy.apply.routes import RoutesTarget
from weft.proxy.apply.target import Target
from weft.proxy.config import Config
from weft.proxy.upkeep import CHECKPOINT
from weft.proxy.watch.checkpoint import API_SERVERS

log = logging.getLogger(__name__)


class PodsLeft(Exception):
    """Pods still hang on links of ours."""


def cleanup(config: Config, pod_links: re.Pattern[str]) -> None:
    """Remove it all. Raises PodsLeft before anything is touched, PinsUnusable while a daemon runs,
    ForeignPin, OSError; what could not be removed is an OSError that says what.
    """
    left = sorted(name for _, name in socket.if_nameindex() if pod_links.fullmatch(name))
    if left:
        raise PodsLeft(
            f"{len(left)} pods still hang on Weft's links ({left[0]}...): drain the node first "
            f"(kubectl drain, and delete pods of DaemonSets that are on the pod network)"
        )
    with ExitStack() as stack:
        stack.enter_context(pins.held(config.pins))
        # First of all: a runtime that finds it asks for pods.
        _remove(config.conf_dir / conflist.FILE)
        hooks = Hooks({}, config.pins, find_cgroup2(config.cgroup), has_tcx=probe().tcx)
        for name, target in (
            ("hooks", HooksTarget(stack.enter_context(hooks))),
            ("routes", RoutesTarget()),
            ("links", LinksTarget()),
            ("nftables' table", NftTarget()),
        ):
            _empty(name, target)
        for path in _pins(config.pins):
            _remove(path)
    for folder in (pins.MAPS, pins.HOOKS, pins.TYPES, ""):
        (config.pins / folder).rmdir()
    for path in _state(config):
        _remove(path)


def _empty(name: str, target: Target) -> None:
    rows = [key for key, _ in target.dump()]
    errors = target.write({}, rows)
    if errors:
        raise OSError(f"{name} not removed: " + "; ".join(errors.values()))
    log.info("removed", extra={"what": name, "number": len(rows)})


def _pins(folder: Path) -> Iterator[Path]:
    for name in (pins.MAPS, pins.TYPES):
        yield from list((folder / name).iterdir())


def _state(config: Config) -> tuple[Path, ...]:
    """What is ours below `state`, and the sockets that a daemon left."""
    state = config.state
    files = (state / "cni", state / CHECKPOINT, state / API_SERVERS)
    return *files, config.cni_socket, config.api_socket


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        log.info("removed", extra={"path": str(path)})
