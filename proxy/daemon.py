"""Owns how the daemon's rooms are put together, started in order, and let go in reverse.

Stopping leaves everything in the kernel: maps, programs, links and routes go on without a daemon.
Never decides anything about traffic.
"""

import asyncio
import gc
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from weft.bpf import build
from weft.bpf.clsact import POD_BLOCK
from weft.bpf.events import EventReader
from weft.bpf.features import jiffies_hz, netns_cookie, probe
from weft.bpf.hook import Hooks
from weft.bpf.layout import TABLES
from weft.bpf.load import Datapath, open_datapath
from weft.bpf.wire import TableKind
from weft.cni.repair import open_leases, reconcile
from weft.cni.server import DELETIONS, LEASES, CniServer
from weft.proxy.apply import forward, podlinks, podroutes, sockdiag, sysctl
from weft.proxy.apply.applier import Applier
from weft.proxy.apply.desired import Desired
from weft.proxy.apply.hooks import HooksTarget, find_cgroup2
from weft.proxy.apply.links import LinksTarget
from weft.proxy.apply.nft import NftTarget
from weft.proxy.apply.order import TABLES as ROW_TABLES
from weft.proxy.apply.patrol import Patrol
from weft.proxy.apply.routes import PROTOCOL, RoutesTarget
from weft.proxy.apply.sockets import Sockets
from weft.proxy.apply.sweep import Sweep
from weft.proxy.apply.target import TableTarget, Target
from weft.proxy.config import Config, shown
from weft.proxy.handover import Handovers
from weft.proxy.intake import Intake
from weft.proxy.loop import Loop, View
from weft.proxy.model.objects import LISTED_KINDS, Kind
from weft.proxy.model.world import Settings, World
from weft.proxy.node import DaemonNode, workload_of
from weft.proxy.observe.serve import Doors, observing
from weft.proxy.observe.service_health import Complaint
from weft.proxy.plan import PLANNERS
from weft.proxy.plan.path_mtu import routed_ends
from weft.proxy.planning import Planning
from weft.proxy.ring import Ring
from weft.proxy.stranded import Stranded
from weft.proxy.upkeep import CHECKPOINT, ApiKeeper, Upkeep
from weft.proxy.watch import checkpoint
from weft.proxy.watch.api import ApiServers
from weft.proxy.watch.ask import Asker
from weft.proxy.watch.events import Listed
from weft.proxy.watch.folder import Folder
from weft.proxy.watch.kube import Kube
from weft.proxy.watch.netlink import Netlink
from weft.proxy.watch.path_mtu import KernelRoutes, PathMtus, Probes

log = logging.getLogger(__name__)

POD_LINKS = re.compile(r"weft[0-9a-f]{11}")
"""Names of pods' host ends (weft.cni.verbs.host_ifname)."""

EXPECTED = LISTED_KINDS
"""Nothing goes before all of these have listed."""


PINS, PINNED, RULES = "pins", "pinned hooks", "rules"
OFTEN = (PINS, PINNED, RULES, sysctl.NAME, forward.NAME, podlinks.NAME)
"""What others alter without a word, and must not stay altered for long."""


SWITCH_S = 0.0005

_NO_SOCKET_END = (
    "no CONFIG_INET_DIAG_DESTROY: a connected UDP socket of the node stays with a backend that is "
    "gone until it connects anew"
)


class KernelTooOld(Exception):
    """This kernel cannot run Weft: what it lacks."""


class Daemon:
    """One node's daemon; `run` it once."""

    def __init__(self, config: Config) -> None:
        self._config = config

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises what keeps a daemon from starting or from going on."""
        config = self._config
        # A first listing only makes objects; Upkeep turns collection on once it is through.
        gc.disable()
        # Packets wait for the event loop (watch.ask). By default it gets its turn after 5 ms of a
        # working thread's, anew behind each system call: four datagrams 6.7 ms, so 1.8.
        sys.setswitchinterval(SWITCH_S)
        async with AsyncExitStack() as stack:
            leases = stack.enter_context(open_leases(config.state / "cni" / LEASES.name))
            attachments = await reconcile(leases)
            datapath, hooks = _open_datapath(config, stack)
            loop = make_loop(config, datapath, hooks)
            loop.post(Listed(Kind.ATTACHMENT, {w.key: w for w in map(workload_of, attachments)}))
            _sysctls(config).prepare(POD_LINKS)
            sources = _start_sources(config, loop, stack)
            asker = Asker(config.ask_port, lambda: loop.world, loop.post)
            handovers = Handovers(lambda: loop.world, asker.announce)
            node = DaemonNode(loop, handovers, sources.heard_s, upgrades=bool(datapath.retired))
            upkeep = Upkeep(config, loop, node, datapath, hooks.outdated)
            async with asyncio.TaskGroup() as tasks, AsyncExitStack() as serving:
                running = [tasks.create_task(loop.run(), name="loop")]
                # Last of all: verbs that still run need the loop.
                serving.callback(lambda: [task.cancel() for task in running])
                deletions = config.state / "cni" / DELETIONS.name
                server = CniServer(config.cni_socket, leases, node, deletions)
                await serving.enter_async_context(server.serve())
                ring = serving.enter_context(_reading(datapath, asker))
                paths = _path_mtus(config, loop, serving)
                running.append(tasks.create_task(paths.run(), name="path mtu"))
                if config.ask_port:
                    running.append(tasks.create_task(asker.run(loop.wait_until), name="ask"))
                view = View(loop, datapath.tables)
                servers = sources.servers
                keeper = ApiKeeper(config, loop, servers, upkeep.ready) if servers else None
                complain = keeper.notices.complain if keeper else _tell_nobody
                lacks = _lacks()
                observed = observing(view, _doors(config), ring, sources.troubles, complain, lacks)
                metrics = (await serving.enter_async_context(observed)).metrics
                server.observers += [_look_after_adds(loop), metrics.cni]
                sweep = Sweep(datapath.program("sweep").fd, datapath.tables)
                sweep.observers.append(metrics.swept)
                running.append(tasks.create_task(sweep.run(), name="sweep"))
                if _NO_SOCKET_END not in lacks:
                    stranded = Stranded(view, Sockets(datapath.tables).leave)
                    stranded.observers.append(metrics.sockets_ended.inc)
                    running.append(tasks.create_task(stranded.run(), name="stranded"))
                running.append(tasks.create_task(upkeep.run(), name="upkeep"))
                if keeper is not None:
                    running.append(tasks.create_task(keeper.run(), name="api"))
                await stop.wait()
                log.info("stopping; the datapath goes on")


def _look_after_adds(loop: Loop) -> Callable[[str, int, float], None]:
    """A link that has been seen up is made: set down from then on, it is put back up at once."""

    def look(verb: str, code: int, duration_s: float) -> None:
        if verb == "ADD" and code == 0:
            loop.suspect(podlinks.NAME)

    return look


def make_loop(config: Config, datapath: Datapath, hooks: Hooks) -> Loop:
    """The loop over this node's tables, links, routes and hooks."""
    settings = replace(
        _settings(config), table_sizes={n: t.max_entries for n, t in datapath.tables.items()}
    )
    intake = Intake(World(settings), EXPECTED)
    desired = Desired()
    hooks_target, nft_target = HooksTarget(hooks), NftTarget()
    targets = _targets(datapath, hooks_target, nft_target)
    applier = Applier(targets, desired, time.monotonic)
    applier.repairs.update(_repairs(config, datapath, hooks_target, intake))

    def look_at_hooks() -> int:
        if hooks_target.pins_moved():
            applier.compare("hooks")
        return 0

    def look_at_rules() -> int:
        if nft_target.moved():
            applier.compare("nft")
        return 0

    applier.repairs.update({PINNED: look_at_hooks, RULES: look_at_rules})
    patrol = Patrol(applier, [*sorted(ROW_TABLES), podroutes.NAME], OFTEN)
    planning = Planning(PLANNERS, desired)
    return Loop(intake, planning, desired, applier, patrol)


@contextmanager
def _reading(datapath: Datapath, asker: Asker) -> Iterator[Ring]:
    """The datapath's events, of which those of held packets make the asker ask."""
    with EventReader(datapath.tables["events"]) as reader:
        ring = Ring(reader, lambda events: asker.ask((e.tuple.src, e.tuple.dst) for e in events))
        ring.start()
        try:
            yield ring
        finally:
            ring.stop()


def _path_mtus(config: Config, loop: Loop, stack: AsyncExitStack) -> PathMtus:
    routes = stack.enter_context(closing(KernelRoutes()))
    probes = stack.enter_context(closing(Probes(config.overlay_port)))
    return PathMtus(lambda: routed_ends(loop.world), loop.post, routes.mtu_bytes, probes.send)


def _doors(config: Config) -> Doors:
    return Doors(
        config.api_socket,
        config.healthz_bind_address,
        config.metrics_bind_address,
        shown(config),
        config.bind_address_hard_fail,
    )


def _lacks() -> tuple[str, ...]:
    """What this kernel has not, and what follows from it."""
    return probe().missing + (() if sockdiag.can_end() else (_NO_SOCKET_END,))


def _tell_nobody(complaint: Complaint) -> None:
    """A folder of manifests has nobody to tell; the log has it."""


def _sysctls(config: Config) -> sysctl.Sysctls:
    ports = (config.snat_port_min, config.snat_port_max) if config.masquerade else None
    return sysctl.Sysctls(config.sysctl, ports)


def _open_datapath(config: Config, stack: AsyncExitStack) -> tuple[Datapath, Hooks]:
    features = probe()
    for what in features.missing:
        log.warning("kernel lacks", extra={"what": what})
    if not features.supported:
        raise KernelTooOld("Weft needs Linux 6.1 or later: " + "; ".join(features.missing))
    datapath = stack.enter_context(
        open_datapath(pins=config.pins, objects=build.objects_folder(), entries=config.table_sizes)
    )
    _say_migration(datapath)
    cgroup = find_cgroup2(config.cgroup)
    hooks = Hooks(datapath.programs, config.pins, cgroup, has_tcx=features.tcx)
    return datapath, stack.enter_context(hooks)


def _say_migration(datapath: Datapath) -> None:
    for one in datapath.migration.copied:
        extra = {"pin": one.pin.name, "rows": one.rows, "unfit": one.unfit}
        log.info("state of another version carried over", extra=extra)
    for pin, why in datapath.migration.unmigrated.items():
        log.warning("state of another version left", extra={"pin": str(pin), "why": why})
    for table, why in datapath.untyped.items():
        log.warning("a table's dump will not name its fields", extra={"map": table, "why": why})


def _settings(config: Config) -> Settings:
    return Settings(
        node=config.node,
        host_netns_cookie=netns_cookie(),
        hz=jiffies_hz(),
        mode=config.mode,
        overlay=config.overlay,
        overlay_vni=config.overlay_vni,
        overlay_port=config.overlay_port,
        ask_port=config.ask_port,
        path_mtu_bytes=config.path_mtu,
        masquerade=config.masquerade,
        never_masquerade=config.never_masquerade,
        snat_port_min=config.snat_port_min,
        snat_port_max=config.snat_port_max,
        event_sample=config.event_sample,
        socket_hook=config.socket_hook,
        client_address=config.client_address,
        node_port_addresses=config.node_port_addresses,
        external_ips=config.external_ips,
        service_cidrs=config.service_cidrs,
        namespace_share=config.namespace_share,
    )


def _repairs(
    config: Config, datapath: Datapath, hooks: HooksTarget, intake: Intake
) -> Mapping[str, Callable[[], int]]:
    """What is mended though it has no rows, by name."""
    sysctls, links = _sysctls(config), podlinks.PodLinks(hooks.hooked_pods)

    def with_routes(mend: Callable[[World], int]) -> int:
        """A link that was down, or had its IPv6 turned off, has lost its routes."""
        mended = mend(intake.world)
        return mended + (podroutes.repair(intake.world) if mended else 0)

    accept = {forward.NAME: forward.Forward().mend} if config.forward_accept else {}
    return accept | {
        PINS: datapath.repin,
        podroutes.NAME: lambda: podroutes.repair(intake.world),
        podlinks.NAME: lambda: with_routes(links.mend),
        sysctl.NAME: lambda: with_routes(sysctls.mend),
    }


def _targets(datapath: Datapath, hooks: HooksTarget, nft: NftTarget) -> Mapping[str, Target]:
    targets: dict[str, Target] = {
        "links": LinksTarget(),
        "routes": RoutesTarget(),
        "hooks": hooks,
        "nft": nft,
    }
    for spec in TABLES.values():
        if spec.name in ROW_TABLES:
            zero_row = bytes(spec.value_size) if spec.kind is TableKind.ARRAY else b""
            targets[spec.name] = TableTarget(datapath.tables[spec.name], zero_row)
    return targets


@dataclass(frozen=True, slots=True)
class Sources:
    """Where intent comes from. servers: the API's; None for a folder of manifests.

    troubles: what keeps it from being read now, with the reason. heard_s: when it was heard last,
    in seconds since boot.
    """

    servers: ApiServers | None
    troubles: Callable[[], Mapping[str, str]]
    heard_s: Callable[[], float]


def _start_sources(config: Config, loop: Loop, stack: AsyncExitStack) -> Sources:
    """Start netlink and the source of intent."""
    netlink = Netlink(loop.post, loop.suspect, POD_LINKS, POD_BLOCK, PROTOCOL, podroutes.PROTOCOL)
    netlink.start()
    stack.callback(netlink.stop)
    kind, _, path = config.source.partition(":")
    if kind == "dir":
        folder = Folder(Path(path), loop.post)
        folder.start()
        stack.callback(folder.stop)
        return Sources(None, folder.troubles, lambda: math.inf)
    # The official client's 25 MB are for those who have an API server.
    from weft.proxy.watch.connect import connect

    servers = connect(config.api_servers, config.kubeconfig, config.kubelet_servers)
    for known in checkpoint.load_api_servers(config.state / CHECKPOINT, config.node):
        loop.post(known)
    kube = Kube(servers, loop.post)
    kube.start()
    stack.callback(kube.stop)
    return Sources(servers, kube.troubles, kube.heard_s)
