"""Owns the daemon's side of CNI: an attachment becomes a change, answered when its rows are done.

Implements weft.cni.node.Node. Never writes a map: only the loop does; never asks the API server.
"""

import logging
from collections.abc import Callable

from weft.cni.node import LinkMode, NotReady, PodNetwork
from weft.cni.spec import Attachment
from weft.proxy.apply.desired import Owner
from weft.proxy.apply.gate import Stage
from weft.proxy.handover import Handovers
from weft.proxy.loop import Loop
from weft.proxy.model.objects import Kind, Ref, Workload
from weft.proxy.model.world import Mode
from weft.proxy.plan.mtu import pod_mtu_bytes, route_mtu_bytes
from weft.proxy.plan.node import BRIDGE, host_sources
from weft.proxy.watch.events import Moved

log = logging.getLogger(__name__)

APPLIED_TIMEOUT_S = 10.0
POD_TIMEOUT_S = 5.0
"""How long an ADD waits for the watch's news of its pod; then it starts closed."""


class DaemonNode:
    """What `weft.cni` asks of this node, answered from the loop."""

    def __init__(
        self, loop: Loop, handovers: Handovers, heard_s: Callable[[], float], *, upgrades: bool
    ) -> None:
        """heard_s: when the source of intent was heard last, in seconds since boot. upgrades:
        pods of this node are served from tables of another shape than this version's.
        """
        self._loop = loop
        self._handovers = handovers
        self._heard_s = heard_s
        self._upgrades = upgrades

    async def attached(self, attachment: Attachment) -> None:
        """Returns when the pod's rows and hooks are in the kernel. Raises NotReady with those that
        are not.
        """
        workload = workload_of(attachment)
        owners = await self._loop.submit(Moved(Kind.ATTACHMENT, workload.key, workload))
        await self._handovers.attached(workload)
        if not await self._loop.wait_until(lambda: self._is_known(workload), POD_TIMEOUT_S):
            log.warning("pod unknown, it starts closed", extra={"pod": str(workload.ref)})
        if not await self._loop.wait_until(
            lambda: not self._loop.unfinished(owners), APPLIED_TIMEOUT_S
        ):
            why = "; ".join(self._loop.unfinished(owners))
            raise NotReady(f"pod {workload.ref}: not in the kernel after 10 s: {why}")

    async def missing(self, attachment: Attachment) -> tuple[str, ...]:
        """Reads the kernel's tables, and has them mended where they lack something. Raises NotReady
        while the cluster's state is not known: what judges the pod may be the last daemon's.
        """
        if self._loop.applier.stage is Stage.STARTING:
            raise NotReady(f"waits for {', '.join(self._loop.intake.waits_for())}")
        return await self._loop.missing(_owners(attachment.host_ifname))

    async def detached(self, attachment: Attachment) -> None:
        """Returns when the pod's rows are gone. An unknown one is success."""
        gone = self._loop.world.workload(attachment.host_ifname)
        await self._loop.submit(Moved(Kind.ATTACHMENT, attachment.host_ifname, None))
        if gone is not None:
            self._handovers.detached(gone)

    def network(self) -> PodNetwork:
        """Ranges from the own Node's podCIDRs. Raises NotReady while the Node is not known, and
        while a new pod's hook would take every other pod to tables that are empty yet: all pods'
        links run one program (weft.bpf.hook).
        """
        world = self._loop.world
        if self._upgrades and self._loop.applier.stage is Stage.STARTING:
            raise NotReady(
                "the tables of this version are filled when the cluster's state is known: it "
                f"waits for {', '.join(self._loop.intake.waits_for())}"
            )
        own = world.own_node()
        if own is None:
            raise NotReady(
                f"the Node object {world.settings.node} is not known yet: it waits for "
                f"{', '.join(self._loop.intake.waits_for()) or 'that object to appear'}"
            )
        bridged = world.settings.mode is Mode.BRIDGE
        return PodNetwork(
            ranges=own.pod_cidrs,
            mode=LinkMode.BRIDGE if bridged else LinkMode.ROUTED,
            mtu_bytes=pod_mtu_bytes(world),
            route_mtu_bytes=route_mtu_bytes(world),
            bridge=BRIDGE if bridged else "",
            sources=host_sources(world),
            heard_s=self._heard_s(),
        )

    def _is_known(self, workload: Workload) -> bool:
        """Pods outside of Kubernetes (cnitool) have no UID and are not waited for."""
        pod = self._loop.world.pod(workload.ref)
        return not workload.ref.name or (pod is not None and workload.uid in ("", pod.uid))


def _owners(key: str) -> tuple[Owner, ...]:
    """Whose rows let a pod talk: without one of them it is cut off."""
    return ("workloads", key), ("pod_links", key), ("hooks", ("workload", key))


def workload_of(attachment: Attachment) -> Workload:
    """The record of an attachment; its key is the host end's name, which outlives restarts."""
    return Workload(
        key=attachment.host_ifname,
        ref=Ref(attachment.pod_namespace, attachment.pod_name),
        uid=attachment.pod_uid,
        addresses=attachment.addresses,
        ifindex=attachment.host_ifindex,
        mac=_bytes(attachment.pod_mac),
        host_mac=_bytes(attachment.host_mac),
        netns_cookie=attachment.netns_cookie,
    )


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
