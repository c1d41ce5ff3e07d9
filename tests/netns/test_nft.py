"""Weft's own table of nftables holds what the plan says, whatever was there before."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from deploy.netlab import manifests
from tests.netns.alone import play, sh
from tests.unit.plan.law import Turns
from weft.proxy.apply.nft import NftTarget
from weft.proxy.model.decode import decode_manifest
from weft.proxy.model.objects import Broken, Kind, Ref
from weft.proxy.model.world import Settings, World
from weft.proxy.plan import PLANNERS

Rows = Mapping[Hashable, object]
VIPS = ("10.96.0.1", "fd00:96::1")
ENDPOINTS = tuple(map(ip_address, ("10.244.1.5", "10.244.2.5", "fd00:1::5", "fd00:2::5")))


@dataclass(slots=True)
class Stage:
    """A World, its rows for nftables, and a kernel that follows them turn by turn."""

    turns: Turns = field(default_factory=lambda: Turns(PLANNERS, World(Settings(node="n1"))))
    target: NftTarget = field(default_factory=NftTarget)

    def rows(self) -> Rows:
        return {key: row for (table, key), row in self.turns.plan().items() if table == "nft"}

    def put(self, *objects: manifests.Manifest) -> None:
        self._turn([move(one) for one in objects])

    def remove(self, kind: Kind, name: str) -> None:
        self._turn([(kind, Ref("default", name), None)])

    def _turn(self, moves: Any) -> None:
        before = self.rows()
        self.turns.turn(moves)
        after = self.rows()
        changed = {key: row for key, row in after.items() if before.get(key) != row}
        if changed:
            self.target.write(changed, ())
        if gone := before.keys() - after.keys():
            self.target.write({}, gone)

    def check(self) -> None:
        assert dict(self.target.dump()) == self.rows()


def move(manifest: manifests.Manifest) -> tuple[Kind, Ref, Any]:
    found = decode_manifest(manifest)
    assert found is not None
    assert not isinstance(found, Broken)
    metadata = manifest["metadata"]
    return found[0], Ref(metadata.get("namespace", ""), metadata["name"]), found[1]


def service(name: str = "web", vips: tuple[str, ...] = VIPS, **spec: Any) -> manifests.Manifest:
    made = manifests.service(name, "default", vips, [("s", "SCTP", 38412)])
    return {**made, "spec": {**made["spec"], **spec}}


def slices(name: str = "web", count: int = 2) -> list[manifests.Manifest]:
    return [
        manifests.endpoint_slice(
            f"{name}-{version}", "default", name,
            [a for a in ENDPOINTS if a.version == version][:count],
            [("s", "SCTP", 99)], version,
        )
        for version in (4, 6)
    ]  # fmt: skip


def staged() -> Stage:
    stage = Stage()
    node = manifests.node("n1", ["192.0.2.1", "2001:db8::1"], ["10.244.1.0/24", "fd00:1::/64"])
    stage.put(node, service(), *slices())
    return stage


@pytest.mark.parametrize(
    "spec",
    [
        {"sessionAffinity": "ClientIP"},
        {"type": "NodePort", "ports": [{"name": "s", "protocol": "SCTP", "port": 38412,
                                        "nodePort": 30100}]},
        {"internalTrafficPolicy": "Local"},
        {"ports": [{"name": "s", "protocol": "TCP", "port": 38412}]},
    ],
    ids=["affinity", "node port", "local", "no SCTP any more"],
)  # fmt: skip
def test_each_turn_leaves_the_kernel_with_the_plan_and_nothing_else(spec: dict[str, Any]) -> None:
    def story() -> None:
        stage = staged()
        stage.check()
        stage.put(service(**spec))
        stage.check()
        stage.put(*slices(count=1))
        stage.check()
        stage.put(*slices(count=0))
        stage.check()
        stage.put(service(), *slices())
        stage.check()

    play(story)


def test_one_service_writes_its_own_rows_and_none_of_anothers() -> None:
    def story() -> None:
        stage = staged()
        sh("nft add rule inet weft-sctp refuse counter")
        stage.put(service("other", ("10.96.0.2",)), *slices("other"))
        assert "counter" in sh("nft list chain inet weft-sctp refuse")
        stage.remove(Kind.SERVICE, "other")
        assert "counter" in sh("nft list chain inet weft-sctp refuse")

    play(story)


def test_clients_that_were_remembered_are_kept_when_another_endpoint_comes() -> None:
    def story() -> None:
        stage = staged()
        stage.put(service(sessionAffinity="ClientIP"), *slices(count=1))
        name = next(line.split()[1] for line in sh("nft list sets").splitlines()
                    if "set clients-" in line)  # fmt: skip
        client = "192.0.2.7" if "ipv4" in sh(f"nft list set inet weft-sctp {name}") else "fd00::7"
        sh(f"nft add element inet weft-sctp {name} '{{ {client} }}'")
        stage.put(*slices(count=2))
        stage.check()
        assert client in sh(f"nft list set inet weft-sctp {name}")

    play(story)


def test_without_an_sctp_service_there_is_no_table_and_no_hook() -> None:
    """Else netfilter would track all that the node's stack carries."""

    def story() -> None:
        stage = Stage()
        tcp = manifests.service("tcp", "default", ["10.96.0.9"], [("t", "TCP", 80)])
        stage.put(tcp)
        assert sh("nft list ruleset") == ""
        stage = staged()
        assert "weft-sctp" in sh("nft list tables")
        stage.remove(Kind.SERVICE, "web")
        assert sh("nft list ruleset") == ""

    play(story)


@pytest.mark.parametrize(
    "harm",
    [
        "flush ruleset",
        "flush chain inet weft-sctp prerouting",
        "add rule inet weft-sctp prerouting counter",
        "insert rule inet weft-sctp refuse drop",
        "add chain inet weft-sctp more",
        "flush map inet weft-sctp pods4",
        "add element inet weft-sctp owned4 { 192.0.2.9 }",
        "add set inet weft-sctp more { type mark; }",
    ],
)
def test_what_another_hand_did_shows_and_is_mended_by_writing_the_difference(harm: str) -> None:
    def story() -> None:
        stage = staged()
        assert stage.target.moved()
        assert not stage.target.moved()
        sh(f"nft '{harm}'")
        assert stage.target.moved()
        wanted, have = stage.rows(), dict(stage.target.dump())
        assert have != wanted
        stage.target.write({k: row for k, row in wanted.items() if have.get(k) != row}, ())
        stage.target.write({}, dict(stage.target.dump()).keys() - wanted.keys())
        stage.check()

    play(story)


def test_tables_of_others_are_neither_read_nor_touched() -> None:
    def story() -> None:
        sh("nft 'add table inet fw; add chain inet fw refuse; add set inet fw pods4 "
           "{ type ipv4_addr; elements = { 192.0.2.1 }; }'")  # fmt: skip
        before = sh("nft list ruleset")
        stage = staged()
        stage.check()
        stage.remove(Kind.SERVICE, "web")
        assert sh("nft list ruleset") == before

    play(story)


def test_what_the_kernel_refuses_names_what_it_must_have() -> None:
    def story() -> None:
        stage = Stage()
        rows = staged().rows()
        chains = {key: row for key, row in rows.items() if "SetKey" not in repr(key)}
        sh("nft flush ruleset")
        with pytest.raises(OSError, match="SCTP Services need nf_tables, nft_nat"):
            stage.target.write(chains, ())
        stage.check()

    play(story)
