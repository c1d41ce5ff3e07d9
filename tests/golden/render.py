"""Rows as a person reads them: the tables of a plan by name, unpacked, sorted."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from ipaddress import ip_network
from typing import cast

from weft.bpf.layout import (
    UNSPECIFIED,
    Address,
    Backend,
    Frontend,
    FrontendFlag,
    FrontendKey,
    Prefix,
    PrefixFlag,
    PrefixKey,
    RangeKey,
    SettingFlag,
    Settings,
    Slot,
    SlotKey,
    Uplink,
    UplinkFlag,
    Workload,
    pack_u32,
    unpack_address,
    unpack_u32,
    unpack_u64,
)
from weft.proxy.model.world import World
from weft.proxy.plan.hooks import Hook, HookPoint
from weft.proxy.plan.links import BridgeLink, OverlayLink
from weft.proxy.plan.nft import Chain, ChainKey, Member, Translate, Verdict
from weft.proxy.plan.routes import Route
from weft.proxy.plan.services_choice import backend_id

Plan = Mapping[tuple[str, Hashable], object]
Lines = dict[str, object]

_WHOLE = {
    0: "a Service's",
    FrontendFlag.OPEN: "answers echoes",
    FrontendFlag.OTHER_PROXY: "another proxy's",
}
_PROTOCOLS = {6: "TCP", 17: "UDP", 132: "SCTP"}


def render(plan: Plan, world: World, table: str) -> object:
    """One table of `plan`; `world` names what the kernel only numbers."""
    return _TABLES[table](plan, world)


def place(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _rows(plan: Plan, table: str) -> Iterator[tuple[bytes, bytes]]:
    for (name, key), value in plan.items():
        if name == table:
            yield cast(bytes, key), cast(bytes, value)


def _services(plan: Plan, world: World) -> Lines:
    """Each frontend with its flags and the places that new flows go to; a whole address stands
    alone. Where clients outside get others, both lists.
    """
    lines: Lines = {}
    for packed, value in _rows(plan, "frontends"):
        key, row = FrontendKey.unpack(packed), Frontend.unpack(value)
        if key.port == 0:
            lines[str(key.addr)] = _WHOLE[row.flags]
        else:
            lines[_frontend(key, row)] = _reached(plan, row)
    return lines


def _frontend(key: FrontendKey, row: Frontend) -> str:
    """Node ports at the loopback go without saying, and who gets local ones the lists say."""
    unsaid = FrontendFlag.ELSEWHERE | FrontendFlag.EXTERNAL
    words = [f.name.lower() for f in FrontendFlag if f & row.flags & ~unsaid and f.name]
    affinity = [f"affinity {row.affinity_s}"] if row.affinity_s else []
    return " ".join([f"{place(key.addr, key.port)}/{_PROTOCOLS[key.proto]}", *words, *affinity])


def _reached(plan: Plan, row: Frontend) -> object:
    none = "dropped" if row.flags & FrontendFlag.ELSEWHERE else "refused"
    cluster = sorted(_targets(plan, row, row.service, row.backends))
    if not row.flags & (FrontendFlag.LOCAL_INSIDE | FrontendFlag.LOCAL_OUTSIDE):
        return cluster or none
    local = sorted(_targets(plan, row, row.local_service, row.local_backends)) or none
    if row.flags & FrontendFlag.LOCAL_INSIDE:
        return local
    return {"inside": cluster or "refused", "outside": local}


def _targets(plan: Plan, row: Frontend, service: int, count: int) -> Iterator[str]:
    for index in range(count):
        slot = Slot.unpack(cast(bytes, plan["slots", SlotKey(service, index).pack()]))
        assert slot.backend == backend_id(row.service, slot.addr, slot.port)
        yield place(slot.addr, slot.port)


def _spare_slots(plan: Plan, world: World) -> int:
    """Slots beyond those that frontends count."""
    counted = {}
    for _, value in _rows(plan, "frontends"):
        row = Frontend.unpack(value)
        counted[row.service] = row.backends
        counted[row.local_service] = row.local_backends
    keys = [SlotKey.unpack(key) for key, _ in _rows(plan, "slots")]
    return sum(key.index >= counted.get(key.service, 0) for key in keys)


def _source_ranges(plan: Plan, world: World) -> list[str]:
    found = []
    for packed, _ in _rows(plan, "source_ranges"):
        key = RangeKey.unpack(packed)
        length = key.prefix_len - 64 - (96 if key.addr.version == 4 else 0)
        found.append(str(ip_network((key.addr, length))))
    return sorted(found)


def _alive(plan: Plan, world: World) -> list[str]:
    """The places of all living backends, by trying every address and port that a slice says."""
    said = {
        (endpoint.address, port.port)
        for piece in world.slices()
        for endpoint in piece.endpoints
        for port in piece.ports
    }
    found = []
    for key, value in _rows(plan, "backends"):
        name, service = unpack_u64(key), Backend.unpack(value).service
        found += [place(a, p) for a, p in said if backend_id(service, a, p) == name]
    return sorted(found)


def _prefixes(plan: Plan, world: World) -> Lines:
    lines: Lines = {}
    for packed, value in _rows(plan, "prefixes"):
        key, row = PrefixKey.unpack(packed), Prefix.unpack(value)
        length = key.prefix_len - (96 if key.addr.version == 4 else 0)
        words = [flag.name.lower() for flag in PrefixFlag if flag & row.flags and flag.name]
        link = [f"link {row.ifindex}"] if row.ifindex else []
        lines[str(ip_network((key.addr, length)))] = " ".join([*words, *_address(row.node), *link])
    return lines


def _address(address: Address) -> list[str]:
    return [] if address == UNSPECIFIED else [str(address)]


def _settings(plan: Plan, world: World) -> Lines:
    row = Settings.unpack(cast(bytes, plan["settings", pack_u32(0)]))
    flags = [flag.name.lower() for flag in SettingFlag if flag & row.flags and flag.name]
    return {
        "flags": " ".join(flags),
        "overlay": row.overlay_ifindex,
        "gateways": [*_address(row.gateway4), *_address(row.gateway6)],
        "snat ports": f"{row.snat_port_min}-{row.snat_port_max}",
    }


def _uplinks(plan: Plan, world: World) -> Lines:
    lines: Lines = {}
    for key, value in _rows(plan, "uplinks"):
        row = Uplink.unpack(value)
        layer3 = ["layer 3"] if row.flags & UplinkFlag.LAYER3 else []
        lines[str(unpack_u32(key))] = " ".join(
            [*_address(row.addr4), *_address(row.addr6), *layer3]
        )
    return lines


def _workloads(plan: Plan, world: World) -> Lines:
    lines: Lines = {}
    for key, value in _rows(plan, "workloads"):
        row = Workload.unpack(value)
        lines[str(unpack_address(key))] = f"link {row.ifindex} mac {row.mac.hex(':')}"
    return lines


def _links(plan: Plan, world: World) -> Lines:
    lines: Lines = {}
    for (table, _), row in plan.items():
        if table != "links" or not isinstance(row, OverlayLink | BridgeLink):
            continue  # the hold link is the same on every node
        kind = f"vxlan port {row.port}" if isinstance(row, OverlayLink) else "bridge"
        lines[row.name] = " ".join([f"{kind} mtu {row.mtu_bytes}", *map(str, row.addresses)])
    return lines


def _routes(plan: Plan, world: World) -> Lines:
    rows = [cast(Route, value) for _, value in _rows(plan, "routes")]
    return {
        str(row.prefix): f"{f'via {row.via} ' if row.via else ''}dev {row.device} src {row.source}"
        for row in rows
    }


def _hooks(plan: Plan, world: World) -> Lines:
    lines: Lines = {}
    for key, value in _rows(plan, "hooks"):
        point, row = cast(HookPoint, key), cast(Hook, value)
        lines[f"{point.ifindex} {point.direction}{point.at and ' '}{point.at}"] = row.program
    return lines


def _netfilter(plan: Plan, world: World) -> Lines:
    """What each place leads to, by kind of client: endpoints in the order of the rules that choose
    by chance, after those of clients that are remembered; no hooks.
    """
    lines: Lines = {}
    for (table, key), verdict in plan.items():
        if table == "nft" and isinstance(key, Member) and isinstance(verdict, Verdict):
            address, port = key.values
            chain = cast(Chain | None, plan.get((table, ChainKey(verdict.chain))))
            name = f"{key.of.rstrip('46')} {place(cast(Address, address), cast(int, port))}"
            targets = _translations(chain) if chain else []
            lines[name] = sorted(targets) or verdict.chain or verdict.act.value
    return lines


def _translations(chain: Chain) -> list[str]:
    steps = (step for rule in chain.rules for step in rule)
    return [place(step.address, step.port) for step in steps if isinstance(step, Translate)]


def _own_slots(plan: Plan, world: World) -> Lines:
    """How many of the first slots of a frontend of netfilter's are this node's own."""
    rows = ((FrontendKey.unpack(k), Frontend.unpack(v)) for k, v in _rows(plan, "frontends"))
    return {
        place(key.addr, key.port): row.ring_size
        for key, row in rows
        if row.flags & FrontendFlag.STACK
    }


_TABLES: Mapping[str, Callable[[Plan, World], object]] = {
    "services": _services,
    "alive": _alive,
    "source ranges": _source_ranges,
    "spare slots": _spare_slots,
    "prefixes": _prefixes,
    "settings": _settings,
    "uplinks": _uplinks,
    "workloads": _workloads,
    "links": _links,
    "routes": _routes,
    "hooks": _hooks,
    "netfilter": _netfilter,
    "own slots": _own_slots,
}
