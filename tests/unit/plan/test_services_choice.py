"""The choice of endpoints, case by case as kube-proxy 1.36 tests its own (pkg/proxy/topology_test).

An endpoint is written `name@node state hints`: state `ready`, `drains` (terminating, serves),
`ends` (terminating, serves no more) or `unready`; hints `z=zone,zone` and `n=node,node`. The client
is on node n1 in zone z1 unless a case says otherwise.
"""

from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from weft.proxy.plan.services_choice import Choice, Endpoint, Standpoint, categorize, why_unused

HERE = Standpoint("n1", "z1")
STATES = {
    "ready": (True, True, False),
    "drains": (False, True, True),
    "ends": (False, False, True),
    "unready": (False, False, False),
}
NAMES = "abcdef"


def endpoint(text: str) -> Endpoint:
    place, state, *hints = text.split()
    name, _, node = place.partition("@")
    number = NAMES.index(name) + 1
    said = {kind: tuple(names.split(",")) for kind, _, names in (h.partition("=") for h in hints)}
    ready, serving, terminating = STATES[state]
    return Endpoint(
        number,
        ip_address("10.244.0.0") + number,
        80,
        ready,
        serving,
        terminating,
        node,
        for_zones=said.get("z", ()),
        for_nodes=said.get("n", ()),
    )


@dataclass(frozen=True)
class Case:
    """cluster, local: the names expected, None where nobody asks for the set."""

    what: str
    endpoints: tuple[str, ...]
    cluster: str | None
    local: str | None = None
    anywhere: bool = True
    at: Standpoint = HERE


CASES = (
    # Hints of zones.
    Case(
        "hints of zones narrow the choice to the client's",
        ("a ready z=z1", "b ready z=z2", "c ready z=z3", "d ready z=z1"),
        "ad",
    ),
    Case(
        "an endpoint for several zones serves each of them",
        ("a ready z=z1,z2", "b ready z=z2", "c ready z=z3"),
        "a",
    ),
    Case(
        "one ready endpoint without a hint voids all of them",
        ("a ready z=z1", "b ready z=z2", "c ready", "d ready z=z3"),
        "abcd",
    ),
    Case(
        "an unready endpoint without a hint voids nothing",
        ("a ready z=z1", "b ready z=z2", "c unready", "d ready z=z1"),
        "ad",
    ),
    Case(
        "a draining endpoint without a hint voids nothing",
        ("a ready z=z1", "b ready z=z2", "c drains", "d ready z=z1"),
        "ad",
    ),
    Case(
        "a node without a zone uses all",
        ("a ready z=z1", "b ready z=z2"),
        "ab",
        at=Standpoint("n1", ""),
    ),
    Case(
        "a zone that no hint names uses all",
        ("a ready z=z2", "b ready z=z3"),
        "ab",
    ),
    Case(
        "an endpoint of the client's zone that is not ready leaves its zone with none: all",
        ("a unready z=z1", "b ready z=z2", "c ready z=z3"),
        "bc",
    ),
    # Hints of nodes, which PreferSameNode has beside those of zones.
    Case(
        "hints of nodes narrow the choice to the client's node",
        ("a ready z=z1 n=n1", "b ready z=z1 n=n2", "c ready z=z2 n=n3"),
        "a",
    ),
    Case(
        "a node that no hint names falls back to its zone",
        ("a ready z=z1 n=n2", "b ready z=z1 n=n3", "c ready z=z2 n=n4"),
        "ab",
    ),
    Case(
        "without a hint for node or zone all are used",
        ("a ready z=z2 n=n2", "b ready z=z3 n=n3"),
        "ab",
    ),
    Case(
        "one ready endpoint without a hint of nodes leaves those of zones",
        ("a ready z=z1 n=n1", "b ready z=z1", "c ready z=z2 n=n2"),
        "ab",
    ),
    Case(
        "one ready endpoint without a hint of zones leaves those of nodes",
        ("a ready n=n1", "b ready z=z1 n=n2", "c ready z=z2 n=n2"),
        "a",
    ),
    Case(
        "an endpoint for several nodes serves each of them",
        ("a ready n=n1,n2", "b ready n=n2"),
        "a",
    ),
    Case(
        "a hint for this node on an endpoint that is not ready counts for nothing",
        ("a unready n=n1 z=z1", "b ready n=n2 z=z1", "c ready n=n3 z=z2"),
        "b",
    ),
    # Policy Local alone: internal, and nothing outside.
    Case("none at all is local", (), None, "", anywhere=False),
    Case("what is here is local", ("a@n1 ready", "b@n2 ready"), None, "a"),
    Case("all that are here are local", ("a@n1 ready", "b@n1 ready"), None, "ab"),
    Case("none is here, but some elsewhere", ("a@n2 ready", "b@n3 ready"), None, ""),
    Case("an endpoint without a node is never local", ("a ready", "b@n1 ready"), None, "b"),
    Case("none is here, and those elsewhere are not ready", ("a@n2 unready",), None, "", False),
    Case("hints do not narrow policy Local", ("a@n1 ready z=z2", "b@n2 ready z=z1"), None, "a"),
    # Policy Cluster alone.
    Case("all that are ready", ("a@n1 ready", "b@n2 ready", "c@n2 unready"), "ab"),
    Case("none is ready", ("a@n1 unready", "b@n2 ends"), "", anywhere=False),
    Case("draining ones stand back", ("a@n1 ready", "b@n2 drains"), "a"),
    Case("draining ones stand in for all", ("a@n1 drains", "b@n2 drains", "c@n2 ends"), "ab"),
    Case(
        "draining ones stand in whatever their hints say",
        ("a@n1 drains z=z2", "b@n2 drains z=z1"),
        "ab",
    ),
    # Both sets: a policy Local of one side, the whole cluster for the other.
    Case("one set for each", ("a@n1 ready", "b@n2 ready"), "ab", "a"),
    Case("none is here: the others have all", ("a@n2 ready", "b@n3 ready"), "ab", ""),
    Case(
        "hints narrow the one set, not the other",
        ("a@n1 ready z=z2", "b@n1 ready z=z1", "c@n2 ready z=z1"),
        "bc",
        "ab",
    ),
    Case(
        "a local one that drains is used as soon as none here is ready",
        ("a@n1 drains", "b@n2 ready", "c@n1 ends"),
        "b",
        "a",
    ),
    Case(
        "draining ones stand in for both where nothing is ready",
        ("a@n1 drains", "b@n2 drains", "c@n1 unready"),
        "ab",
        "a",
    ),
    Case("a local one that is ready keeps those that drain out", ("a@n1 drains", "b@n1 ready"),
         "b", "b"),
    Case("nothing is of use anywhere", ("a@n1 unready", "b@n2 ends"), "", "", anywhere=False),
)  # fmt: skip


def names(chosen: tuple[Endpoint, ...] | None) -> str | None:
    return None if chosen is None else "".join(NAMES[e.id - 1] for e in chosen)


def choice(case: Case) -> Choice:
    return categorize(
        map(endpoint, case.endpoints),
        case.at,
        uses_cluster=case.cluster is not None,
        uses_local=case.local is not None,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_the_sets_are_these(case: Case) -> None:
    found = choice(case)
    assert (names(found.cluster), names(found.local)) == (case.cluster, case.local)
    assert found.anywhere is case.anywhere


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_who_is_in_every_set_has_no_reason_not_to_be_and_all_others_have_one(case: Case) -> None:
    found = choice(case)
    sets = [chosen for chosen in (found.cluster, found.local) if chosen is not None]
    for one in map(endpoint, case.endpoints):
        in_all = all(one in chosen for chosen in sets)
        assert bool(why_unused(one, found, case.at)) is not in_all


@pytest.mark.parametrize(
    ("endpoints", "cluster", "local", "why"),
    [
        (("a unready",), True, False, "not ready"),
        (("a ends",), True, False, "terminating, serves no more"),
        (("a drains", "b ready"), True, False, "terminating, others are ready"),
        (("a ready z=z2,z3", "b ready z=z1"), True, False, "for clients in zone z2, z3"),
        (("a ready n=n2", "b ready n=n1"), True, False, "for clients on n2"),
        (("a@n2 ready",), True, True, "policy Local: not on this node"),
        (
            ("a@n1 drains", "b@n1 ready"),
            False,
            True,
            "policy Local: terminating, others here are ready",
        ),
    ],
)
def test_why_an_endpoint_is_not_used_is_said(
    endpoints: tuple[str, ...], cluster: bool, local: bool, why: str
) -> None:
    every = tuple(map(endpoint, endpoints))
    found = categorize(every, HERE, uses_cluster=cluster, uses_local=local)
    assert why_unused(every[0], found, HERE) == why


def test_hints_do_not_bind_clients_outside() -> None:
    every = tuple(map(endpoint, ("a ready z=z1", "b ready z=z2", "c drains z=z1", "d unready")))
    of = {"uses_cluster": True, "uses_local": False, "uses_outside": True}
    for zone in ("z1", "z2"):
        assert names(categorize(every, Standpoint("n1", zone), **of).outside) == "ab"
    found = categorize(every, HERE, **of)
    assert why_unused(every[1], found, HERE) == "for clients in zone z2 and outside"
    assert why_unused(every[2], found, HERE) == "terminating, others are ready"
    assert names(categorize(every[2:], HERE, **of).outside) == "c"
