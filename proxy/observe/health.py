"""/healthz and /livez, by kube-proxy's rules and in its JSON.

Source: kubernetes pkg/proxy/healthcheck/proxy_health.go (1.36). Owns when the node counts as
healthy. Rows in error do not: they are single, retried and shown by `weft status`; a load balancer
that leaves the node for one of them would hurt every other Service.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus

from weft.proxy.apply.gate import Stage
from weft.proxy.loop import Turn, View
from weft.proxy.observe.web import NO_SNIFF, Answer

STALE_AFTER_S = 60.0
"""2 x kube-proxy's default syncPeriod: an event that waits longer than this was not applied."""


class Health:
    """The node's health as one proxier per IP family would tell it."""

    def __init__(self, view: View, clock: Callable[[], float] = time.monotonic) -> None:
        self._view, self._clock = view, clock
        self._updated: dict[str, datetime] = {}
        self.healthz_codes: Counter[int] = Counter()
        self.livez_codes: Counter[int] = Counter()
        view.watch_turns(self._turned)

    async def healthz(self) -> Answer:
        """Whether the node should get traffic from load balancers; 503 also when it leaves."""
        eligible, in_time = self._eligible(), self.in_time()
        code = _code(eligible and in_time)
        self.healthz_codes[code] += 1
        return self._answer(code, {"nodeEligible": eligible, "healthy": in_time})

    async def livez(self) -> Answer:
        """Whether the daemon works; the API server and the Node object do not count."""
        in_time = self.in_time()
        code = _code(in_time)
        self.livez_codes[code] += 1
        return self._answer(code, {"healthy": in_time})

    def in_time(self) -> bool:
        """Whether no event waits too long, which is all that kube-proxy means by healthy.

        A daemon that has not brought the kernel in line yet is starting, which is healthy.
        """
        since_s = self._view.queued_since_s
        if since_s is None or not self._updated:
            return True
        return self._clock() - since_s < STALE_AFTER_S

    def families(self) -> tuple[str, ...]:
        """The families that this node's pods have; both until the API has said."""
        node = self._view.world.own_node()
        versions = {prefix.version for prefix in node.pod_cidrs} if node else set()
        return tuple(f"IPv{version}" for version in sorted(versions or {4, 6}))

    def _turned(self, turn: Turn) -> None:
        if turn.stage is Stage.LISTED:
            now = datetime.now(UTC)
            self._updated = dict.fromkeys(self.families(), now)

    def _eligible(self) -> bool:
        """Node gone, being deleted or about to be removed by the cluster autoscaler: no.

        Before the nodes have listed nothing is known, and the answer is no, as with kube-proxy.
        """
        node = self._view.world.own_node()
        return node is not None and not node.leaving and not self._view.node_deleted

    def _answer(self, code: HTTPStatus, said: Mapping[str, bool]) -> Answer:
        now = datetime.now(UTC)
        ok = code is HTTPStatus.OK
        last = now if ok else max(self._updated.values(), default=_NEVER)
        body = {"lastUpdated": _stamp(last), "currentTime": _stamp(now), **said}
        if self._updated:
            body["status"] = {
                family: {"lastUpdated": _stamp(at), "healthy": said["healthy"]}
                for family, at in sorted(self._updated.items())
            }
        text = json.dumps(body, separators=(",", ":")).encode()
        return Answer(text, "application/json", code, NO_SNIFF)


_NEVER = datetime(1, 1, 1, tzinfo=UTC)
"""Go's zero time, which kube-proxy prints before its first update."""


def _code(healthy: bool) -> HTTPStatus:
    return HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE


def _stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
