"""Owns the Events that the daemon puts on Services, for people who ask the API about them.

Never repeats one: whoever complains says a thing once. An Event that the API does not take is
logged and gone; `weft status` has what it said.
"""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime

from weft.proxy.observe.service_health import Complaint
from weft.proxy.watch.api import ApiError, ApiServers, ApiUnreachable

log = logging.getLogger(__name__)

_WAITING = 64
"""More than these are dropped while the API server is away."""
_NOTE_MAX_BYTES = 1024
"""events.k8s.io/v1 takes no longer note."""


class Notices:
    """Takes complaints at once and tells the API of them, one after the other."""

    def __init__(self, servers: ApiServers, node: str) -> None:
        self._servers, self._node = servers, node
        self._queue: asyncio.Queue[Complaint] = asyncio.Queue(_WAITING)

    def complain(self, complaint: Complaint) -> None:
        """Queue it; never waits."""
        try:
            self._queue.put_nowait(complaint)
        except asyncio.QueueFull:
            log.warning("event dropped", extra={"service": str(complaint.service)})

    async def run(self) -> None:
        """Tell the API until cancelled."""
        while True:
            complaint = await self._queue.get()
            try:
                await asyncio.to_thread(self._post, complaint)
            except (ApiError, ApiUnreachable, OSError, ValueError) as error:
                extra = {"service": str(complaint.service), "error": str(error)}
                log.warning("event not taken", extra=extra)

    def _post(self, complaint: Complaint) -> None:
        namespace = complaint.service.namespace
        event = json.dumps(self._event(complaint)).encode()
        self._servers.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event)

    def _event(self, complaint: Complaint) -> dict[str, object]:
        namespace, name = complaint.service
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            # As client-go names them.
            "metadata": {"namespace": namespace, "name": f"{name}.{time.time_ns():x}"},
            "eventTime": now,
            "reportingController": "weft.dev/weftd",
            "reportingInstance": f"weftd-{self._node}",
            "action": complaint.action,
            "reason": complaint.reason,
            "regarding": self._regarding(namespace, name),
            "note": complaint.note.encode()[:_NOTE_MAX_BYTES].decode(errors="ignore"),
            "type": "Warning",
        }

    def _regarding(self, namespace: str, name: str) -> dict[str, str]:
        """With the uid, by which `kubectl describe` looks for a Service's Events."""
        path = f"/api/v1/namespaces/{namespace}/services/{name}"
        response = self._servers.get(path, {}, 10.0)
        try:
            uid = str(json.loads(response.read())["metadata"]["uid"])
        finally:
            response.close()
        return {
            "apiVersion": "v1", "kind": "Service", "namespace": namespace, "name": name, "uid": uid
        }  # fmt: skip
