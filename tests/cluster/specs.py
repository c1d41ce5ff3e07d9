"""Owns which upstream specs are run, and why others are not; never runs one.

tests/README.md shows the skips (`python -m tests.cluster.specs` prints them), tests/test_house.py
holds the two equal; a run that skips any other spec fails.
"""

from dataclasses import dataclass
from enum import StrEnum

# Features that a cluster may have beside; those of IPv6DualStack are run.
_FEATURES = (
    "ClusterNetworkPolicy", "Ingress", "KubeProxyDaemonSet", "KubeProxyNFAcct", "LoadBalancer",
    "NetworkPolicy", "Networking-", "PerformanceDNS", "SCTPConnectivity",
)  # fmt: skip


class Part(StrEnum):
    """What of the suite is run."""

    ALL = "all"
    CONFORMANCE = "conformance"
    """What CI has the time for: Conformance, and all that says Networking."""


FOCUS = {
    Part.ALL: r"\[sig-network\]",
    Part.CONFORMANCE: (
        r"\[sig-network\].*\[Conformance\]"
        r"|\[sig-network\] (Networking|NoSNAT|\[Feature:IPv6DualStack\] should)"
    ),
}


@dataclass(frozen=True, slots=True)
class Skip:
    """Specs that are not run: those whose full text `pattern` (Go's and Python's alike) finds."""

    pattern: str
    reason: str


SKIPS = (
    Skip(r"\[(Slow|Disruptive|Serial)\]", "these change or outlast the cluster beside others"),
    Skip(rf"\[Feature:({'|'.join(_FEATURES)})", "each asks for more than a cluster's network has"),
    Skip(r"SCTPConnectivity", "the kernel of the lab has no SCTP sockets"),
    Skip(
        r"Services should be rejected for evicted pods",
        "local storage isolation is off in the lab, so that no pod is evicted",
    ),
)
# What skips itself, seen from its own words.
SELF_SKIPS = (
    Skip(r"DNS for the cluster \[Provider:GCE\]", "Google's cloud only"),
    Skip(
        r"between pods on multiple nodes when using Prefer",
        "it wants three zones of two nodes each",
    ),
)


def skip_regexp() -> str:
    """One regular expression of all that is not run."""
    return "|".join(skip.pattern for skip in SKIPS)


def markdown() -> str:
    """The skips as tests/README.md shows them."""
    rows = [(f"`{skip.pattern}`", skip.reason) for skip in (*SKIPS, *SELF_SKIPS)]
    lines = [("not run", "why"), ("---", "---"), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )


if __name__ == "__main__":
    print(markdown())
