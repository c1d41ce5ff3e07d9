"""Programs on links through clsact: the way for every pod's link, and for all links before 6.6.

Pods share one block of filters for each direction: attaching a pod is one qdisc, and one replace
changes the program of every pod. tcx would cost a grace period under RTNL for each hook.
"""

import errno
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from weft.bpf.rtnl import CREATE, EXCLUSIVE, Answer, Message, Rtnl, Traffic, attribute, attributes

# Block numbers are the namespace's: "WEFT" with a last letter for the direction.
_BLOCKS_BASE = 0x57454600
_BLOCK_IFINDEX = 0xFFFFFFFF  # TCM_IFINDEX_MAGIC_BLOCK: the parent is a block's number
_CLSACT_HANDLE, _CLSACT_PARENT = 0xFFFF0000, 0xFFFFFFF1
_TCA_KIND, _TCA_OPTIONS, _TCA_INGRESS_BLOCK, _TCA_EGRESS_BLOCK = 1, 2, 13, 14
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID = 6, 7, 8, 11
_FLAG_ACT_DIRECT = 1
# First of all filters; for every protocol (ETH_P_ALL in network order).
_PRIORITY_AND_PROTOCOL = 1 << 16 | 0x0300
_HANDLE = 1
NAME_PREFIX = "weft_"


class LinkDirection(StrEnum):
    """Seen from the link: ingress is what it receives (from a pod), egress what it sends."""

    INGRESS = "ingress"
    EGRESS = "egress"


_PARENTS = {LinkDirection.INGRESS: 0xFFFFFFF2, LinkDirection.EGRESS: 0xFFFFFFF3}
_BLOCKS = {LinkDirection.INGRESS: _BLOCKS_BASE | 0x49, LinkDirection.EGRESS: _BLOCKS_BASE | 0x45}

POD_BLOCK = _BLOCKS[LinkDirection.INGRESS]
"""What the ingress of every pod's link shares: by it our qdisc is told from another's."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A program of ours in a filter: its name in bpf/, and the loaded program's id."""

    program: str
    program_id: int


def join_blocks(rtnl: Rtnl, ifindexes: Iterable[int]) -> dict[int, Answer]:
    """Give links a clsact that uses the shared blocks; answers of those that do not have it now.

    EEXIST is another's ingress or clsact qdisc on the link."""
    links = list(ifindexes)
    answers = rtnl.request([(Message.NEW_QDISC, CREATE | EXCLUSIVE, _qdisc(one)) for one in links])
    failed = {one: answer for one, answer in zip(links, answers, strict=True) if answer.error}
    if any(answer.error == errno.EEXIST for answer in failed.values()):
        for member in block_members(rtnl):
            failed.pop(member, None)
    return failed


def leave_blocks(rtnl: Rtnl, ifindexes: Iterable[int]) -> dict[int, Answer]:
    """Take the qdisc of `join_blocks` off again; a link or qdisc that is gone is no error."""
    members = set(block_members(rtnl))
    links = [one for one in ifindexes if one in members]
    answers = rtnl.request([(Message.DELETE_QDISC, 0, _qdisc(one)) for one in links])
    return {one: answer for one, answer in zip(links, answers, strict=True) if _matters(answer)}


def set_block(rtnl: Rtnl, direction: LinkDirection, name: str, fd: int) -> Answer:
    """Make the program that of every link in the block; EINVAL where no link is in it."""
    return _set(rtnl, Traffic(_BLOCK_IFINDEX, parent=_BLOCKS[direction]), name, fd)


def block_members(rtnl: Rtnl) -> Iterator[int]:
    """The links that use the shared blocks."""
    for qdisc in rtnl.dump(Message.GET_QDISC, Traffic(0)):
        block = attributes(qdisc.attributes).get(_TCA_INGRESS_BLOCK)
        if block == struct.pack("=I", _BLOCKS[LinkDirection.INGRESS]):
            yield qdisc.ifindex


def block_filter(rtnl: Rtnl, direction: LinkDirection) -> Filter | None:
    """The program of every link in the block."""
    return _find(rtnl, Traffic(_BLOCK_IFINDEX, parent=_BLOCKS[direction]))


def set_filter(rtnl: Rtnl, ifindex: int, direction: LinkDirection, name: str, fd: int) -> Answer:
    """Put the program on one link alone, with a clsact of its own where there is none."""
    plain = Traffic(ifindex, _CLSACT_HANDLE, _CLSACT_PARENT, 0, attribute(_TCA_KIND, b"clsact\0"))
    (made,) = rtnl.request([(Message.NEW_QDISC, CREATE | EXCLUSIVE, plain)])
    # In an ingress qdisc a filter for egress would land on ingress.
    if made.error and not (made.error == errno.EEXIST and ifindex in single_links(rtnl)):
        return made
    return _set(rtnl, Traffic(ifindex, parent=_PARENTS[direction]), name, fd)


def remove_filter(rtnl: Rtnl, ifindex: int, direction: LinkDirection) -> Answer:
    """Take our program off one link, and the clsact where nothing else uses it."""
    if link_filter(rtnl, ifindex, direction) is None:
        return Answer(0, "")
    where = Traffic(ifindex, _HANDLE, _PARENTS[direction], _PRIORITY_AND_PROTOCOL)
    (removed,) = rtnl.request([(Message.DELETE_FILTER, 0, where)])
    if not _matters(removed) and not any(_filters(rtnl, ifindex)):
        rtnl.request([(Message.DELETE_QDISC, 0, Traffic(ifindex, _CLSACT_HANDLE, _CLSACT_PARENT))])
    return removed if _matters(removed) else Answer(0, "")


def link_filter(rtnl: Rtnl, ifindex: int, direction: LinkDirection) -> Filter | None:
    """Our program on one link alone."""
    return _find(rtnl, Traffic(ifindex, parent=_PARENTS[direction]))


def single_links(rtnl: Rtnl) -> Iterator[int]:
    """Links with a clsact that does not use the shared blocks."""
    for qdisc in rtnl.dump(Message.GET_QDISC, Traffic(0)):
        found = attributes(qdisc.attributes)
        if found.get(_TCA_KIND) == b"clsact\0" and _TCA_INGRESS_BLOCK not in found:
            yield qdisc.ifindex


def _qdisc(ifindex: int) -> Traffic:
    kind = attribute(_TCA_KIND, b"clsact\0")
    blocks = attribute(_TCA_INGRESS_BLOCK, struct.pack("=I", _BLOCKS[LinkDirection.INGRESS]))
    blocks += attribute(_TCA_EGRESS_BLOCK, struct.pack("=I", _BLOCKS[LinkDirection.EGRESS]))
    return Traffic(ifindex, _CLSACT_HANDLE, _CLSACT_PARENT, 0, kind + blocks)


def _set(rtnl: Rtnl, where: Traffic, name: str, fd: int) -> Answer:
    """CREATE without EXCLUSIVE: a filter with this handle is replaced between two packets."""
    options = attribute(_BPF_FD, struct.pack("=I", fd))
    options += attribute(_BPF_NAME, f"{NAME_PREFIX}{name}".encode() + b"\0")
    options += attribute(_BPF_FLAGS, struct.pack("=I", _FLAG_ACT_DIRECT))
    body = attribute(_TCA_KIND, b"bpf\0") + attribute(_TCA_OPTIONS, options)
    filled = Traffic(where.ifindex, _HANDLE, where.parent, _PRIORITY_AND_PROTOCOL, body)
    return rtnl.request([(Message.NEW_FILTER, CREATE, filled)])[0]


def _find(rtnl: Rtnl, where: Traffic) -> Filter | None:
    for one in rtnl.dump(Message.GET_FILTER, where):
        options = attributes(attributes(one.attributes).get(_TCA_OPTIONS, b""))
        name = options.get(_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
        if name.startswith(NAME_PREFIX):
            return Filter(name.removeprefix(NAME_PREFIX), struct.unpack("=I", options[_BPF_ID])[0])
    return None


def _filters(rtnl: Rtnl, ifindex: int) -> Iterator[Mapping[int, bytes]]:
    for parent in _PARENTS.values():
        for one in rtnl.dump(Message.GET_FILTER, Traffic(ifindex, parent=parent)):
            yield attributes(one.attributes)


def _matters(answer: Answer) -> bool:
    """Whether an answer to a removal is an error: a link, qdisc or filter that is gone is none."""
    return answer.error not in (0, errno.ENODEV, errno.ENOENT, errno.EINVAL)
