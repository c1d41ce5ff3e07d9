"""The kernel's look-ups of a verdict (bpf/include/policy.h), step by step, on packed rows.

Works on any tables: FakeTable in unit tests, KernelTable where the rows are read back.
"""

from collections.abc import Iterable, Mapping

from weft.bpf.layout import (
    TABLES,
    PortKey,
    PrefixKey,
    Verdict,
    VerdictKey,
    pack_address,
    unpack_u32,
    unpack_u64,
)
from weft.bpf.table import FakeTable, Table
from weft.proxy.model.objects import Address, Workload
from weft.proxy.model.world import World
from weft.proxy.plan.policy import PLANNERS, judgement

NAMES = ("verdicts", "ports", "peers", "blocks")
Tables = Mapping[str, Table]
Rows = dict[tuple[str, bytes], bytes]


def planned(world: World) -> Rows:
    """Policy's full plan of a World."""
    found: Rows = {}
    for planner in PLANNERS:
        for key in planner.all_keys(world):
            for row in planner.rows(world, key):
                assert isinstance(row.key, bytes)
                assert isinstance(row.value, bytes)
                assert found.setdefault((row.table, row.key), row.value) == row.value
    return found


def fake_tables(rows: Rows) -> Tables:
    tables = {name: FakeTable(TABLES[name]) for name in NAMES}
    fill(tables, rows)
    return tables


def fill(tables: Tables, rows: Rows) -> None:
    by_table: dict[str, dict[bytes, bytes]] = {}
    for (table, key), value in rows.items():
        by_table.setdefault(table, {})[key] = value
    for table, some in by_table.items():
        tables[table].update(some)


def empty(tables: Tables, rows: Iterable[tuple[str, bytes]]) -> None:
    for table, key in rows:
        tables[table].delete([key])


def allowed(
    tables: Tables,
    world: World,
    links: Iterable[Workload],
    source: Address,
    destination: Address,
    protocol: int,
    port: int,
) -> bool:
    """judge(): the initiator's egress and the responder's ingress, where they are links here."""
    for link in links:
        said = judgement(world, link)
        if source in link.addresses and not set_allows(
            tables, said.egress_set, destination, protocol, port
        ):
            return False
        if destination in link.addresses and not set_allows(
            tables, said.ingress_set, source, protocol, port
        ):
            return False
    return True


def set_allows(tables: Tables, set_id: int, peer: Address, protocol: int, port: int) -> bool:
    """allows(): set 0 isolates not; no row of the class: the default row; no row at all: drop."""
    if not set_id:
        return True
    bit = port_class(tables, set_id, protocol, port)
    name = peer_class(tables, peer)
    row = tables["verdicts"].lookup(VerdictKey(set_id, name).pack())
    if row is None and name:
        row = tables["verdicts"].lookup(VerdictKey(set_id, 0).pack())
    if row is None:
        return False
    return bool(Verdict.unpack(row).allow[bit >> 6 & 3] >> (bit & 63) & 1)


def peer_class(tables: Tables, peer: Address) -> int:
    row = tables["peers"].lookup(pack_address(peer))
    if row is None:
        row = tables["blocks"].lookup(PrefixKey(128, peer).pack())
    return 0 if row is None else unpack_u64(row)


def port_class(tables: Tables, set_id: int, protocol: int, port: int) -> int:
    key = PortKey(96, set_id & 0xFFFFFFFF, set_id >> 32, protocol, port)
    row = tables["ports"].lookup(key.pack())
    return 0 if row is None else unpack_u32(row)
