"""Owns what the API says of a node that can serve pods: its condition, and a taint that goes.

Never decides when a node is ready.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from weft.proxy.watch.api import ApiError, ApiServers, ApiUnreachable

log = logging.getLogger(__name__)

REPEAT_S = 60.0
CONDITION = "NetworkUnavailable"
REASON = "WeftIsUp"


class NodeCondition:
    """Keeps NetworkUnavailable=False on the own Node and takes an optional taint off it.

    The cloud's node controller sets the condition true on new nodes and may set it again; the
    taint follows from it (kubernetes pkg/controller/nodelifecycle).
    """

    def __init__(self, servers: ApiServers, node: str, taint: str) -> None:
        self._servers = servers
        self._path = f"/api/v1/nodes/{node}"
        self._taint = taint

    async def keep(self) -> None:
        """Look every minute until cancelled; an API server that is away changes nothing."""
        while True:
            try:
                await asyncio.to_thread(self.ensure)
            except (ApiError, ApiUnreachable, OSError, ValueError) as error:
                log.warning("node condition", extra={"error": str(error)})
            await asyncio.sleep(REPEAT_S)

    def ensure(self) -> None:
        """Patch what differs, nothing else. Raises ApiError, ApiUnreachable."""
        response = self._servers.get(self._path, {}, 10.0)
        try:
            node = json.loads(response.read())
        finally:
            response.close()
        conditions = node.get("status", {}).get("conditions") or []
        held: Mapping[str, object] = next((c for c in conditions if c.get("type") == CONDITION), {})
        if (held.get("status"), held.get("reason")) != ("False", REASON):
            self._servers.patch(f"{self._path}/status", _encoded(_condition()))
        taints = node.get("spec", {}).get("taints") or []
        if self._taint and any(taint.get("key") == self._taint for taint in taints):
            self._servers.patch(self._path, _encoded(_without(taints, self._taint)))


def _condition() -> Mapping[str, object]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": CONDITION,
        "status": "False",
        "reason": REASON,
        "message": "Weft has wired this node",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    return {"status": {"conditions": [condition]}}


def _without(taints: list[Mapping[str, object]], key: str) -> Mapping[str, object]:
    return {"spec": {"taints": [taint for taint in taints if taint.get("key") != key]}}


def _encoded(patch: Mapping[str, object]) -> bytes:
    return json.dumps(patch).encode()
