"""Owns the six verbs: in which order an attachment is made and unmade, and what is undone when.

The same under the daemon and in-process. Never reads a socket and never prints.

ADD: addresses -> link with its host end down -> Node.attached -> lease on disk -> host end up.
Until the last step the pod neither sends nor receives, so whatever dies in between leaves a closed
link without a lease, which `repair` removes.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from weft.cni import ipam, results, verbs, wiring
from weft.cni.batch import Batch
from weft.cni.check import disagreements, inspect
from weft.cni.deletions import DeletionQueue
from weft.cni.frame import Answer, Call
from weft.cni.leases import LeaseStore, now_s
from weft.cni.node import Node, NotReady
from weft.cni.spec import (
    VERSIONS,
    Attachment,
    CniError,
    Code,
    Command,
    Key,
    NetworkConfig,
    Request,
    parse_config,
    parse_request,
)
from weft.cni.verbs import LinkPlan
from weft.cni.wiring import PodNamespace

log = logging.getLogger(__name__)

# The daemon answers sooner; this bounds a daemon whose loop is wedged (CRI's own limit is 2 min).
_ATTACHED_TIMEOUT_S = 30.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What the shim opened: the pod's namespace and a rtnetlink socket inside it."""

    netns_fd: int
    route_fd: int


class Plugin:
    """Runs verbs concurrently, never two for the same container."""

    def __init__(self, node: Node, leases: LeaseStore, deletions: DeletionQueue | None) -> None:
        self._node = node
        self._leases = leases
        self._deletions = deletions
        self._removals = Batch(wiring.delete_links)
        self._making = asyncio.Lock()
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}

    async def run(self, call: Call, descriptors: Descriptors | None) -> Answer:
        """The answer for the runtime; no failure of a verb leaves here as an exception."""
        version = VERSIONS[-1]
        try:
            if call.env.get("CNI_COMMAND") == Command.VERSION:
                return Answer(0, results.encode_versions())
            version = _version_of(call.config)
            request = parse_request(call.env, call.config)
            start_s = now_s()
            text = await self._verb(request, descriptors)
            # Runtimes ask for STATUS every five seconds.
            level = logging.DEBUG if request.command is Command.STATUS else logging.INFO
            log.log(level, "%s took %.1f ms", _title(call), (now_s() - start_s) * 1e3)
            return Answer(0, text)
        except CniError as error:
            log.warning("%s %s", _title(call), error)
            return Answer(1, results.encode_error(error, version))
        except NotReady as error:
            log.warning("%s not ready: %s", _title(call), error)
            not_ready = CniError(Code.TRY_AGAIN, "the node's network is not ready", str(error))
            return Answer(1, results.encode_error(not_ready, version))
        except Exception as error:
            log.exception("%s failed", _title(call))
            internal = CniError(Code.INTERNAL, "weft failed", f"{type(error).__name__}: {error}")
            return Answer(1, results.encode_error(internal, version))

    async def undo_add(self, call: Call) -> None:
        """Unmakes what an ADD made whose answer nobody was there to read."""
        request = parse_request(call.env, call.config)
        log.warning("%s: the runtime left before the answer, undoing", _title(call))
        async with self._alone(request.container_id):
            await self._detach(request.key, request.config.name)

    async def drain_deletions(self) -> None:
        """Carries out what the shim queued while nobody listened."""
        for key in self._deletions.waiting() if self._deletions else ():
            try:
                async with self._alone(key.container_id):
                    await self._delete_queued(key)
            except Exception as error:
                log.error("queued deletion %s failed, it stays queued: %s", key, error)

    async def release(self, attachment: Attachment) -> None:
        """Frees a lease whose link has vanished with its pod's namespace."""
        async with self._alone(attachment.container_id):
            if self._leases.find(attachment.key) == attachment:
                await self._detach(attachment.key, attachment.network)

    async def _verb(self, request: Request, descriptors: Descriptors | None) -> bytes:
        match request.command:
            case Command.ADD:
                return await self._add(request, descriptors)
            case Command.DEL:
                async with self._alone(request.container_id):
                    await self._detach(request.key, request.config.name)
            case Command.CHECK:
                await self._check(request, descriptors)
            case Command.GC:
                await self._collect(request.config)
            case Command.STATUS:
                self._status()
            case Command.VERSION:
                return results.encode_versions()
        return b""

    async def _add(self, request: Request, descriptors: Descriptors | None) -> bytes:
        verbs.refuse_chained(request.config)
        with _namespace(request, descriptors) as pod:
            async with self._alone(request.container_id):
                await self._finish_earlier(request.key)
                plan = await self._attach(request, pod)
        return results.encode_result(verbs.result_of(request, plan), request.config.version)

    async def _finish_earlier(self, key: Key) -> None:
        """A queued DEL of the same attachment goes first, or its drain would undo this ADD."""
        await self._delete_queued(key)
        if (present := self._leases.find(key)) is not None:
            raise CniError(
                Code.ALREADY_ATTACHED,
                f"{key} is already attached",
                f"it holds {', '.join(map(str, present.addresses))}; DEL it first",
            )

    async def _attach(self, request: Request, pod: PodNamespace) -> LinkPlan:
        network = self._node.network()
        async with AsyncExitStack() as undo:
            addresses = self._leases.book.allocate(
                request.key, network.ranges, request.addresses, network.heard_s
            )
            undo.callback(self._leases.book.release, request.key, addresses, now_s())
            plan = verbs.plan_link(request, network, addresses)
            # The kernel's RTNL is one lock: the first of many ADDs are finished before the last
            # are begun, so half of the pods start in half of the time.
            async with self._making:
                host_ifindex = await _in_thread(lambda: wiring.make_link(pod, plan))
            undo.push_async_callback(self._removals.put, plan.host_ifname)
            cookie = pod.route.netns_cookie()
            attachment = verbs.attachment_of(request, plan, host_ifindex, cookie)
            undo.push_async_callback(self._node.detached, attachment)
            await self._announce(attachment)
            await self._leases.hold(attachment)
            undo.push_async_callback(self._leases.release, request.key)
            await _in_thread(lambda: wiring.open_link(pod, plan, host_ifindex))
            undo.pop_all()
        return plan

    async def _announce(self, attachment: Attachment) -> None:
        try:
            async with asyncio.timeout(_ATTACHED_TIMEOUT_S):
                await self._node.attached(attachment)
        except TimeoutError as error:
            raise NotReady(
                f"no rows for {attachment.key} after {_ATTACHED_TIMEOUT_S:.0f} s"
            ) from error

    async def _detach(self, key: Key, network: str) -> None:
        """Closed first, then forgotten, then free; what is absent is success.

        Where the lease file cannot be written the address is free in memory, and the next start
        finds the link gone: a full disk keeps no pod from ending.
        """
        attachment = self._leases.find(key)
        if attachment is not None and attachment.network != network:
            return
        await self._removals.put(verbs.host_ifname(key))
        if attachment is None:
            return
        await self._node.detached(attachment)
        try:
            await self._leases.release(key)
        except CniError as error:
            log.error("DEL %s: %s", key, error)

    async def _delete_queued(self, key: Key) -> None:
        """To be called alone with the container: an ADD may have carried the deletion out."""
        call = self._deletions.find(key) if self._deletions else None
        if self._deletions is None or call is None:
            return
        try:
            request = parse_request(call.env, call.config)
        except CniError as error:
            log.error("queued deletion %s is not well-formed, dropping it: %s", key, error)
        else:
            await self._detach(request.key, request.config.name)
        self._deletions.remove(key)

    async def _check(self, request: Request, descriptors: Descriptors | None) -> None:
        version = request.config.version
        previous = results.addresses_in(bytes(request.config.prev_result), version, request.ifname)
        with _namespace(request, descriptors) as pod:
            async with self._alone(request.container_id):
                attachment = self._leases.find(request.key)
                if attachment is None or attachment.network != request.config.name:
                    raise CniError(Code.UNKNOWN_CONTAINER, f"{request.key} is not attached")
                network = self._node.network()
                seen = await _in_thread(lambda: inspect(pod, attachment))
                missing = await self._node.missing(attachment)
        problems = (*disagreements(attachment, previous, network.mode, seen), *missing)
        if problems:
            raise CniError(
                Code.NOT_AS_ADDED, f"{request.key} is not as it was added", "; ".join(problems)
            )

    async def _collect(self, config: NetworkConfig) -> None:
        failures: list[str] = []
        for key in verbs.stale_keys(config, self._leases.attachments()):
            try:
                async with self._alone(key.container_id):
                    await self._detach(key, config.name)
            except Exception as error:
                log.error("GC of %s: %s", key, error)
                failures.append(f"{key}: {error}")
        if failures:
            raise CniError(
                Code.GC_INCOMPLETE, f"{len(failures)} attachments remain", "; ".join(failures)
            )

    def _status(self) -> None:
        """A full range is no reason to fail here: NetworkReady=false would evict healthy pods."""
        try:
            ipam.check_ranges(self._node.network().ranges)
        except (NotReady, CniError) as error:
            raise CniError(Code.UNAVAILABLE, "the node cannot serve pods", str(error)) from error

    @asynccontextmanager
    async def _alone(self, container_id: str) -> AsyncIterator[None]:
        lock, users = self._busy.get(container_id, (asyncio.Lock(), 0))
        self._busy[container_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._busy[container_id]
            if users == 1:
                del self._busy[container_id]
            else:
                self._busy[container_id] = (lock, users - 1)


@contextmanager
def _namespace(request: Request, descriptors: Descriptors | None) -> Iterator[PodNamespace]:
    if descriptors is None:
        raise CniError(
            Code.INVALID_NETNS,
            "the pod's network namespace cannot be opened",
            f"{request.netns}: {os.strerror(request.netns_errno)}; does the sandbox still run?",
        )
    with wiring.pod_namespace(descriptors.netns_fd, descriptors.route_fd) as pod:
        if wiring.is_own_namespace(pod.fd) and not request.netns_override:
            raise CniError(
                Code.INVALID_NETNS,
                "CNI_NETNS is the node's own network namespace",
                f"{request.netns}; CNI_NETNS_OVERRIDE=1 allows it",
            )
        yield pod


async def _in_thread(work: Callable[[], T]) -> T:
    """RTNL is one lock for the machine: waiting for it must not hold the loop."""
    return await asyncio.to_thread(work)


def _version_of(config: bytes) -> str:
    try:
        return parse_config(config).version
    except CniError:
        return VERSIONS[-1]


def _title(call: Call) -> str:
    words = [call.env.get(f"CNI_{name}", "") for name in ("COMMAND", "CONTAINERID", "IFNAME")]
    return " ".join(filter(None, words))
