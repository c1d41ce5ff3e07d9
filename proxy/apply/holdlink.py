"""Owns the hold link in the kernel: a veth pair, both ends delayed by a token bucket.

The pair is made down and short, then gets its queues, then its MTU: what the kernel cannot delay
never gets that far, and no program sends into it.
"""

import errno
import struct
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from weft.bpf.rtnl import CREATE, REPLACE, Message, Rtnl, Traffic, attribute, attributes
from weft.proxy.plan.links import HoldLink

_IFF_UP, _IFF_NOARP = 0x1, 0x80
_ADDR_GEN_MODE_NONE = 1
# linux/rtnetlink.h, linux/pkt_sched.h
_ROOT, _TCA_KIND, _TCA_OPTIONS, _TCA_TBF_PARMS = 0xFFFFFFFF, 1, 2, 1
_QUEUE = b"tbf\0"
# struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate
_RATE, _ETHERNET = struct.Struct("=BBHhHI"), 1
# A token bucket's unit of time (/proc/net/psched; include/net/pkt_sched.h PSCHED_SHIFT, 6.18).
_TICK_NS = 64


def ensure_hold_link(netlink: Any, row: HoldLink) -> None:
    """Make or mend the pair. Raises OSError that says what the kernel lacks."""
    ends = _ends(netlink, row)
    if ends is None:
        for name in (row.name, row.far_name):
            for ifindex in netlink.link_lookup(ifname=name):
                netlink.link("del", index=ifindex)
        netlink.link("add", ifname=row.name, kind="veth", peer={"ifname": row.far_name})
        ends = _ends(netlink, row)
    for end in ends or ():
        _delay(end["index"], row)
    for end in ends or ():
        _without_addresses(netlink, end["index"])
        netlink.link(
            "set", index=end["index"], mtu=row.mtu_bytes,
            flags=_IFF_UP | _IFF_NOARP, mask=_IFF_UP | _IFF_NOARP,
        )  # fmt: skip


def hold_link_as_row(netlink: Any, row: HoldLink) -> object:
    """`row` where the kernel has it as it says, else what is wrong."""
    ends = _ends(netlink, row)
    if ends is None:
        return "not ours"
    for end in ends:
        if end["flags"] & (_IFF_UP | _IFF_NOARP) != _IFF_UP | _IFF_NOARP:
            return "down"
        if end.get("IFLA_MTU") != row.mtu_bytes:
            return "short"
        if not _is_delayed(end["index"], row):
            return "not delayed"
    return row


def _ends(netlink: Any, row: HoldLink) -> tuple[Any, Any] | None:
    """Both ends' messages; None where they are not one pair."""
    found = [netlink.link_lookup(ifname=name) for name in (row.name, row.far_name)]
    if not all(found):
        return None
    near, far = (netlink.get_links(one[0])[0] for one in found)
    return (near, far) if near.get("IFLA_LINK") == far["index"] else None


def _without_addresses(netlink: Any, ifindex: int) -> None:
    """Else the kernel gives it a link-local one, and says so on it."""
    mode = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}
    try:
        netlink.link("set", index=ifindex, IFLA_AF_SPEC={"attrs": [["AF_INET6", mode]]})
    except NetlinkError as error:
        if error.code not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            raise


def _delay(ifindex: int, row: HoldLink) -> None:
    if _is_delayed(ifindex, row):
        return
    options = attribute(_TCA_OPTIONS, attribute(_TCA_TBF_PARMS, _parameters(row)))
    body = Traffic(ifindex, 0, _ROOT, 0, attribute(_TCA_KIND, _QUEUE) + options)
    with Rtnl() as rtnl:
        (answer,) = rtnl.request([(Message.NEW_QDISC, CREATE | REPLACE, body)])
    if answer.error:
        raise OSError(
            answer.error,
            f"delay {row.name} by a token bucket: {answer}: the kernel needs sch_tbf (modprobe "
            "sch_tbf); until then fragments out of order and first packets to fresh pods are lost",
        )


def _parameters(row: HoldLink) -> bytes:
    """struct tc_tbf_qopt, with a rate and without a peak rate."""
    rate = _RATE.pack(0, _ETHERNET, row.overhead_bytes, 0, 0, row.bytes_per_s)
    ticks = row.burst_bytes * 1_000_000_000 // row.bytes_per_s // _TICK_NS
    return rate + bytes(_RATE.size) + struct.pack("=III", row.limit_bytes, ticks, 0)


def _is_delayed(ifindex: int, row: HoldLink) -> bool:
    with Rtnl() as rtnl:
        queues = rtnl.dump(Message.GET_QDISC, Traffic(ifindex))
    for queue in queues:
        if queue.ifindex != ifindex or queue.parent != _ROOT:
            continue
        told = attributes(queue.attributes)
        options = attributes(told.get(_TCA_OPTIONS, b""))
        return told.get(_TCA_KIND) == _QUEUE and options.get(_TCA_TBF_PARMS) == _parameters(row)
    return False
