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


@dataclass(slots=True)
class Sysctls:
    """Puts back what another hand changed.

    reserved_ports: those that the node's own connections must not choose as their source; None:
    none. Pods' traffic leaves with these: the answer to a connection of the node's from the same
    port to the same server would go to a pod.
    """

    root: Path
    reserved_ports: tuple[int, int] | None
    _refused: dict[Path, str] = field(default_factory=dict)
    _right: set[Path] = field(default_factory=set)
    """What was right once: only what leaves that has been altered by another hand."""

    def prepare(self, pod_links: re.Pattern[str]) -> None:
        """Turn on forwarding in both families, without links losing what routers advertise.

        A router ignores advertisements unless accept_ra is 2 (Linux ip-sysctl), so links that
        accept them get that first; pods' links never do: a pod is no router (CVE-2020-10749). Nor
        does a link that forwards already: it ignores them today.
        """
        for path in sorted(self.root.glob("ipv6/conf/*/accept_ra")):
            link = path.parent.name
            ignores = link in ("all", "default") or pod_links.fullmatch(link)
            if not ignores and read(path) == "1" and read(path.parent / "forwarding") != "1":
                self._set(path, "2")
        for path, value in _forwarding(self.root):
            if read(path) not in (None, value):
                self._set(path, value)

    def mend(self, world: World) -> int:
        """How many differed. Raises NotMended with those that cannot be written."""
        self._refused.clear()
        wanted = dict(self._wanted(world))
        wrong = [path for path, value in wanted.items() if read(path) not in (None, value)]
        mended = [path for path in wrong if self._set(path, wanted[path]) and path in self._right]
        self._right = wanted.keys() - self._refused.keys()
        if mended:
            said = [str(path.relative_to(self.root)) for path in mended[:5]]
            log.warning("drift", extra={"table": NAME, "rows": len(mended), "first": said})
        if self._refused:
            path, why = next(iter(self._refused.items()))
            words = f"{path}: {why}: set it by hand, or let the daemon write it"
            raise NotMended(words, len(mended))
        return len(mended)

    def _set(self, path: Path, value: str) -> bool:
        try:
            path.write_text(value)
        except OSError as error:
            self._refused[path] = f"cannot be set to {value}: {error.strerror}"
            return False
        return True

    def _wanted(self, world: World) -> Iterator[tuple[Path, str]]:
        """accept_ra comes before forwarding: between the two an advertised route would be lost."""
        own = world.own_node()
        outer = set(own.addresses if own is not None else ())
        for link in world.links():
            # Not every link with an address: containers hang on bridges of others too.
            if link.default_route or outer.intersection(link.addresses):
                path = self.root / "ipv6/conf" / link.name / "accept_ra"
                if read(path) in ("1", "2"):
                    yield path, "2"
        yield from _forwarding(self.root)
        names = [link.name for link in world.links() if is_uplink(link)]
        ours = [link.name for link in world.links() if link.name.startswith(_OWN_LINKS)]
        pods = [] if world.settings.mode is Mode.BRIDGE else [w.key for w in world.workloads()]
        for name in (*names, *ours, *pods):
            # IPv4 asks the link by which a packet came, IPv6 the node alone.
            yield self.root / "ipv4/conf" / name / "forwarding", "1"
        for name in (*ours, *pods):
            if own is not None and any(cidr.version == 6 for cidr in own.pod_cidrs):
                yield self.root / "ipv6/conf" / name / "disable_ipv6", "0"
        for name in ours:
            # The larger of `all` and the link's counts; strict drops what came by another way
            # than the route back (RFC 3704).
            yield self.root / "ipv4/conf" / name / "rp_filter", LOOSE
        if self.reserved_ports is not None:
            path = self.root / "ipv4/ip_local_reserved_ports"
            yield path, with_ports(read(path) or "", *self.reserved_ports)


def with_ports(held: str, first: int, last: int) -> str:
    """The reservation `held` with first..last in it; that of others stays. The kernel joins ranges
    that touch, so a larger one may hold ours.
    """
    for part in filter(None, held.split(",")):
        low, _, high = part.partition("-")
        if int(low) <= first and last <= int(high or low):
            return held
    return f"{held},{first}-{last}" if held else f"{first}-{last}"


def _forwarding(root: Path) -> Iterable[tuple[Path, str]]:
    yield root / "ipv4/ip_forward", "1"
    yield root / "ipv6/conf/all/forwarding", "1"


def read(path: Path) -> str | None:
    """None where there is no such file: a link that is gone, a family that the kernel lacks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, _BYTES).decode().strip()
    except OSError:
        # What cannot be read is written, and says then what is wrong.
        return ""
    finally:
        os.close(descriptor)
