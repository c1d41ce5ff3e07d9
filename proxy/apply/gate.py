"""Owns what may be written while not every source has listed; never asks who has.

After a restart the kernel's rows are better than half a World. So a row that the kernel already
holds is neither changed nor deleted before every source has listed (kubernetes/kubernetes
cmd/kube-proxy waits alike; cilium/cilium#27215 is what happens otherwise), but a pod's ADD is
served: what its own rows need is new.
"""

from enum import StrEnum

EARLY_TABLES = frozenset(
    {"links", "routes", "hooks", "settings", "uplinks", "workloads", "verdicts", "ports"}
    | {"pod_links", "sandboxes"}
)
"""Rows that a pod needs to have its link before the cluster is known."""

CERTAIN_DELETES = frozenset({"workloads", "hooks", "pod_links", "sandboxes"})
"""Tables whose rows follow the lease file alone: a DEL takes its rows at once."""


class Stage(StrEnum):
    """How much of the cluster's state the World holds."""

    STARTING = "starting"
    """Sources are still listing: new rows of EARLY_TABLES."""
    CACHED = "cached"
    """The checkpoint stands in for the API: new rows of every table."""
    LISTED = "listed"
    """Every source has listed: everything."""

    def may_add(self, table: str) -> bool:
        return self is not Stage.STARTING or table in EARLY_TABLES

    def may_delete(self, table: str) -> bool:
        return self is Stage.LISTED or table in CERTAIN_DELETES
