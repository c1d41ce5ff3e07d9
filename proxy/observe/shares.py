"""Says on a Service, once, that it is beyond the share of its namespace (plan.shares), and when it
is not any more says nothing: it is served.
"""

import logging
from collections.abc import Callable

from weft.proxy.apply.gate import Stage
from weft.proxy.loop import Turn, View
from weft.proxy.model.objects import Kind, Ref
from weft.proxy.observe.service_health import Complaint
from weft.proxy.plan.shares import every_beyond

log = logging.getLogger(__name__)


class Shares:
    """Looks after each turn that moved Services or endpoints, once all are known."""

    def __init__(self, view: View, complain: Callable[[Complaint], None]) -> None:
        self._view, self._complain = view, complain
        self._told: frozenset[Ref] = frozenset()
        self._stage = Stage.STARTING
        view.watch_turns(self._turned)

    def _turned(self, turn: Turn) -> None:
        moved = any(change.kind in (Kind.SERVICE, Kind.SLICE) for change in turn.changes)
        if turn.stage is Stage.LISTED and (moved or self._stage is not Stage.LISTED):
            self._tell()
        self._stage = turn.stage

    def _tell(self) -> None:
        beyond = dict(every_beyond(self._view.world))
        node = self._view.world.settings.node
        for ref in sorted(beyond.keys() - self._told):
            log.warning("not served", extra={"service": str(ref), "why": beyond[ref]})
            note = f"node {node} does not serve it: {beyond[ref]}"
            self._complain(Complaint(ref, "BeyondNamespaceShare", "Serve", note))
        self._told = frozenset(beyond)
