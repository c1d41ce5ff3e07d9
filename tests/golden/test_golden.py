"""Scenarios: manifests in, tables out, step by step; every file ends with nothing left.

A file says in `what` the behaviour it holds, then steps: `apply` (manifests), `links`,
`workloads`, `remove` ("service shop/web", "link eth0"), and `tables` as render.py writes them.
Only the tables that a step names are compared; after every step the law is checked for all.
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden.render import render
from tests.unit.plan.law import Turns
from weft.proxy.model.decode import decode_manifest
from weft.proxy.model.objects import Broken, Kind, Link, Ref, Workload
from weft.proxy.model.parse import parse_address
from weft.proxy.model.world import Key, Mode, Record, Settings, World
from weft.proxy.plan import PLANNERS

HERE = Path(__file__).parent
Move = tuple[Kind, Key, Record | None]


def settings(said: Mapping[str, Any]) -> Settings:
    return Settings(
        node="n1",
        mode=Mode(said.get("mode", "vxlan")),
        overlay=said.get("overlay", True),
        never_masquerade=tuple(map(ip_network, said.get("never_masquerade", ()))),
        node_port_addresses=tuple(map(ip_network, said.get("node_port_addresses", ()))),
        external_ips=said.get("external_ips", True),
        service_cidrs=tuple(map(ip_network, said.get("service_cidrs", ()))),
    )


def moves(step: Mapping[str, Any]) -> Iterator[Move]:
    for manifest in step.get("apply", ()):
        found = decode_manifest(manifest)
        assert found is not None
        assert not isinstance(found, Broken), found
        metadata = manifest["metadata"]
        yield found[0], Ref(metadata.get("namespace", ""), metadata["name"]), found[1]
    for said in step.get("links", ()):
        yield Kind.LINK, said["name"], link(said)
    for said in step.get("workloads", ()):
        yield Kind.ATTACHMENT, said["key"], workload(said)
    for name in step.get("remove", ()):
        yield removed(name)


def link(said: Mapping[str, Any]) -> Link:
    """Addresses that are written with a prefix length give the link its networks."""
    written = said.get("addresses", ())
    return Link(
        said["name"],
        said["ifindex"],
        said.get("mtu", 1500),
        addresses=tuple(ip_interface(text).ip for text in written),
        default_route=said.get("default_route", False),
        networks=tuple(ip_interface(text).network for text in written if "/" in text),
        has_ethernet=said.get("ethernet", True),
    )


def workload(said: Mapping[str, Any]) -> Workload:
    namespace, _, name = said["pod"].partition("/")
    mac = bytes.fromhex(said["mac"].replace(":", ""))
    addresses = tuple(map(parse_address, said["addresses"]))
    return Workload(
        said["key"], Ref(namespace, name), said["uid"], addresses, said["ifindex"], mac, mac
    )


def removed(text: str) -> Move:
    kind, _, name = text.partition(" ")
    namespace, slash, last = name.rpartition("/")
    by_name = Kind(kind) in (Kind.LINK, Kind.ATTACHMENT)
    return Kind(kind), last if by_name and not slash else Ref(namespace, last), None


@pytest.mark.parametrize(
    "path", sorted(HERE.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_the_tables_are_what_the_scenario_says(path: Path) -> None:
    scenario = yaml.safe_load(path.read_text())
    of = settings(scenario.get("settings", {}))
    kept = Turns(PLANNERS, World(of))
    empty = kept.plan()
    for step in scenario["steps"]:
        kept.turn(moves(step))
        kept.check()
        for table, expected in step["tables"].items():
            found = render(kept.plan(), kept.world, table)
            assert found == expected, f"{step.get('what', scenario['what'])}: {table}"
    kept.turn([(kind, key, None) for kind, table in kept.world.tables.items() for key in table])
    assert kept.plan() == empty
