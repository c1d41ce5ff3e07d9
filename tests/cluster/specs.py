"""Owns which upstream specs are run, and why others are not; never runs one.

tests/README.md shows the skips (`python -m tests.cluster.specs` prints them), tests/test_house.py
holds the two equal; a run that skips any other spec fails.
"""

from dataclasses import dataclass
from enum import StrEnum

# Features that a cluster may have beside; those of IPv6DualStack are run.
_FEATURES = (
    "ClusterNetworkPolicy", "Ingress", "KubeProxyDaemonSet", "KubeProxyNFAcct",
    "NetworkPolicy", "Networking-", "PerformanceDNS", "SCTPConnectivity",
)  # fmt: skip


class Part(StrEnum):
    """What of the suite is run."""

    ALL = "all"
    CONFORMANCE = "conformance"
    NETWORKING = "networking"
    """What a mode of the network may change: the paths, in both families."""
    LOAD_BALANCER = "load-balancer"
    """Slow: each waits for what is to happen not at all."""


FOCUS = {
    Part.ALL: r"\[sig-network\]",
    Part.CONFORMANCE: r"\[sig-network\].*\[Conformance\]",
    Part.NETWORKING: r"\[sig-network\] (Networking|NoSNAT|\[Feature:IPv6DualStack\])",
    Part.LOAD_BALANCER: r"\[sig-network\] LoadBalancers",
}


@dataclass(frozen=True, slots=True)
class Skip:
    """Specs that are not run: those whose full text `pattern` (Go's and Python's alike) finds."""

    pattern: str
    reason: str


_LOAD_BALANCER = Skip(r"LoadBalancers", "`PART=load-balancer` runs them")
_SLOW = Skip(r"\[Slow\]", "each waits for minutes")
SKIPS = (
    _SLOW,
    _LOAD_BALANCER,
    Skip(r"\[(Disruptive|Serial)\]", "these change the cluster under others"),
    Skip(rf"\[Feature:({'|'.join(_FEATURES)})", "each asks for more than a cluster's network has"),
    Skip(r"SCTPConnectivity", "the kernel of the lab has no SCTP sockets"),
    Skip(
        r"LoadBalancers.*should only target nodes with endpoints",
        "it asks nodes' IPv6 addresses for the health of an IPv4 Service",
    ),
    Skip(
        r"Services should be rejected for evicted pods",
        "local storage isolation is off in the lab, so that no pod is evicted",
    ),
)
# What skips itself, seen from its own words.
SELF_SKIPS = (
    Skip(r"DNS for the cluster \[Provider:GCE\]", "Google's cloud only"),
    Skip(
        r"Traffic Distribution should route traffic (correctly|.*fall back to same zone)",
        "three zones of two nodes each: `make cluster NODES=6` has them",
    ),
)


def skip_regexp(part: Part) -> str:
    """One regular expression of all that is not run."""
    spared = (_SLOW, _LOAD_BALANCER) if part is Part.LOAD_BALANCER else ()
    return "|".join(skip.pattern for skip in SKIPS if skip not in spared)


def markdown() -> str:
    """The skips as tests/README.md shows them."""
    rows = [(f"`{skip.pattern}`", skip.reason) for skip in (*SKIPS, *SELF_SKIPS)]
    lines = [("not run", "why"), ("---", "---"), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )


if __name__ == "__main__":
    print(markdown())
