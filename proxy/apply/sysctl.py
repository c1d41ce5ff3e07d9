"""Owns the node's network sysctls: forwarding, and what must hold so that it harms nothing.

Only these are ever written, and only where they differ. Never enters another namespace: `root` is
the node's /proc/sys/net. Others write these files too (sysctl --system at the end of an upgrade,
systemd-networkd for each link that it configures), so they are read again every second.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from weft.proxy.apply.target import NotMended
from weft.proxy.model.world import Mode, World
from weft.proxy.plan.uplinks import is_uplink

log = logging.getLogger(__name__)

NAME = "sysctls"
LOOSE = "2"
_OWN_LINKS = "weft"
_BYTES = 4096
# IPv4 asks the link too by which a packet came, IPv6 the node alone.
_FORWARDING = (("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"))
# Where others' rules have netfilter track what takes the stack, a connection that one end has
# closed must not end there (60 s) before it does here (flow.h): kube-proxy's hour.
_CLOSE_WAIT, CLOSE_WAIT_S = "netfilter/nf_conntrack_tcp_timeout_close_wait", 3600


@dataclass(slots=True)
class Sysctls:
    """Puts back what another hand changed.

    reserved_ports: those that the node's own connections must not choose as their source; None:
    none. Pods' traffic leaves with these: the answer to a connection of the node's from the same
    port to the same server would go to a pod.
    """

    root: Path
    reserved_ports: tuple[int, int] | None
    _refused: dict[str, str] = field(default_factory=dict)
    _right: set[str] = field(default_factory=set)
    """What was right once: only what leaves that has been altered by another hand."""

    def prepare(self, pod_links: re.Pattern[str]) -> None:
        """Turn on forwarding in both families, without links losing what routers advertise.

        A router ignores advertisements unless accept_ra is 2 (Linux ip-sysctl), so links that
        accept them get that first; pods' links never do: a pod is no router (CVE-2020-10749). Nor
        does a link that forwards already: it ignores them today.
        """
        for link in sorted(path.parent.name for path in self.root.glob("ipv6/conf/*/accept_ra")):
            ignores = link in ("all", "default") or pod_links.fullmatch(link)
            accepts, forwards = f"ipv6/conf/{link}/accept_ra", f"ipv6/conf/{link}/forwarding"
            if not ignores and self._read(accepts) == "1" and self._read(forwards) != "1":
                self._set(accepts, "2")
        for name, value in _FORWARDING:
            if self._read(name) not in (None, value):
                self._set(name, value)

    def mend(self, world: World) -> int:
        """How many differed. Raises NotMended with those that cannot be written."""
        self._refused.clear()
        wanted = dict(self._wanted(world))
        wrong = [name for name, value in wanted.items() if self._read(name) not in (None, value)]
        mended = [name for name in wrong if self._set(name, wanted[name]) and name in self._right]
        self._right = wanted.keys() - self._refused.keys()
        if mended:
            log.warning("drift", extra={"table": NAME, "rows": len(mended), "first": mended[:5]})
        if self._refused:
            name, why = next(iter(self._refused.items()))
            words = f"{self.root}/{name}: {why}: set it by hand, or let the daemon write it"
            raise NotMended(words, len(mended))
        return len(mended)

    def _set(self, name: str, value: str) -> bool:
        try:
            (self.root / name).write_text(value)
        except OSError as error:
            self._refused[name] = f"cannot be set to {value}: {error.strerror}"
            return False
        return True

    def _read(self, name: str) -> str | None:
        """None where there is no such file: a link that is gone, a family that the kernel lacks.

        Two files for every pod's link each second: this is what a Path is too slow for.
        """
        try:
            descriptor = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.read(descriptor, _BYTES).decode().strip()
        except OSError:
            # What cannot be read is written, and says then what is wrong.
            return ""
        finally:
            os.close(descriptor)

    def _wanted(self, world: World) -> Iterator[tuple[str, str]]:
        """accept_ra comes before forwarding: between the two an advertised route would be lost."""
        own = world.own_node()
        for link in world.links():
            # Not every link with an address: containers hang on bridges of others too.
            if link.default_route or (own is not None and set(own.addresses) & set(link.addresses)):
                name = f"ipv6/conf/{link.name}/accept_ra"
                if self._read(name) in ("1", "2"):
                    yield name, "2"
        yield from _FORWARDING
        names = [link.name for link in world.links() if is_uplink(link)]
        ours = [link.name for link in world.links() if link.name.startswith(_OWN_LINKS)]
        pods = [] if world.settings.mode is Mode.BRIDGE else [w.key for w in world.workloads()]
        yield from _of_links((*names, *ours, *pods), "ipv4", "forwarding", "1")
        if own is not None and any(cidr.version == 6 for cidr in own.pod_cidrs):
            yield from _of_links((*ours, *pods), "ipv6", "disable_ipv6", "0")
        # The larger of `all` and the link's counts; strict drops what came by another way than
        # the route back (RFC 3704).
        yield from _of_links(ours, "ipv4", "rp_filter", LOOSE)
        if int(self._read(_CLOSE_WAIT) or CLOSE_WAIT_S) < CLOSE_WAIT_S:
            yield _CLOSE_WAIT, str(CLOSE_WAIT_S)
        if self.reserved_ports is not None:
            name = "ipv4/ip_local_reserved_ports"
            yield name, with_ports(self._read(name) or "", *self.reserved_ports)


def _of_links(
    links: Iterable[str], family: str, name: str, value: str
) -> Iterator[tuple[str, str]]:
    return ((f"{family}/conf/{link}/{name}", value) for link in links)


def with_ports(held: str, first: int, last: int) -> str:
    """The reservation `held` with first..last in it; that of others stays. The kernel joins ranges
    that touch, so a larger one may hold ours.
    """
    for part in filter(None, held.split(",")):
        low, _, high = part.partition("-")
        if int(low) <= first and last <= int(high or low):
            return held
    return f"{held},{first}-{last}" if held else f"{first}-{last}"
