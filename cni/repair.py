"""Owns the agreement of the lease file with the kernel's links: at start, and again on a timer.

A link without a lease was being made when its daemon died: nobody was told of it, so it goes.
A lease whose link and namespace are both gone outlived its pod: its addresses are freed.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from weft.cni import wiring
from weft.cni.leases import LeaseStore
from weft.cni.spec import Attachment, CniError, Code
from weft.cni.wiring import LinkState

log = logging.getLogger(__name__)


@contextmanager
def open_leases(path: Path) -> Iterator[LeaseStore]:
    """The lease file, agreed with the kernel: orphans removed, vanished pods' addresses resting.

    A file that does not read is moved aside when the node has no link of ours, since then no pod
    can hold an address. Raises CniError LEASES_UNUSABLE otherwise, and leaves the file alone.
    """
    try:
        LeaseStore(path).check()
    except CniError as error:
        if error.code is not Code.LEASES_UNUSABLE or wiring.our_links():
            raise
        aside = path.with_name(f"{path.name}.unreadable")
        path.rename(aside)
        log.error("%s; no pod is wired, so it was moved to %s", error, aside)
    with LeaseStore(path) as leases:
        yield leases


async def reconcile(leases: LeaseStore) -> tuple[Attachment, ...]:
    """Run before anything is served: returns the attachments that stand, with today's ifindex."""
    links = {link.name: link for link in wiring.our_links()}
    for attachment in vanished(leases.attachments(), links):
        log.warning("releasing %s: its link and its namespace are gone", attachment.key)
        await leases.release(attachment.key)
    orphans = links.keys() - {one.host_ifname for one in leases.attachments()}
    if orphans:
        log.warning("removing links without a lease: %s", ", ".join(sorted(orphans)))
        wiring.delete_links(sorted(orphans))
    return tuple(_as_of_now(one, links) for one in leases.attachments())


def vanished(
    attachments: Iterable[Attachment], links: dict[str, LinkState]
) -> tuple[Attachment, ...]:
    return tuple(
        one for one in attachments if one.host_ifname not in links and not Path(one.netns).exists()
    )


def _as_of_now(attachment: Attachment, links: dict[str, LinkState]) -> Attachment:
    link = links.get(attachment.host_ifname)
    return attachment if link is None else replace(attachment, host_ifindex=link.ifindex)
