"""Owns the node's network sysctls: forwarding, and what must hold so that it harms nothing.

Only these are ever written, and only where they differ. Never enters another namespace: `root` is
the node's /proc/sys/net.
"""

import logging
import re
from collections.abc import Collection
from pathlib import Path

log = logging.getLogger(__name__)

LOOSE = "2"


def prepare_node(root: Path, pod_links: re.Pattern[str]) -> None:
    """Turn on forwarding in both families, without uplinks losing what routers advertise.

    A router ignores advertisements unless accept_ra is 2 (Linux ip-sysctl), so links that accept
    them get that first; pods' links never do: a pod is no router (CVE-2020-10749).
    """
    for path in sorted(root.glob("ipv6/conf/*/accept_ra")):
        link = path.parent.name
        if link not in ("all", "default") and not pod_links.fullmatch(link) and _read(path) == "1":
            _write(path, "2")
    _write(root / "ipv4/ip_forward", "1")
    if (root / "ipv6").is_dir():
        _write(root / "ipv6/conf/all/forwarding", "1")


def reserve_ports(root: Path, first: int, last: int) -> None:
    """Keep the node's own connections from choosing ports first..last as their source.

    Pods' traffic leaves with these: the answer to a connection of the node's from the same port to
    the same server would go to a pod. Others' reservations stay.
    """
    path = root / "ipv4/ip_local_reserved_ports"
    held, wanted = _read(path), f"{first}-{last}"
    if wanted not in held.split(","):
        _write(path, f"{held},{wanted}" if held else wanted)


def prepare_links(root: Path, names: Collection[str]) -> None:
    """Loose reverse path filtering on Weft's own links: the larger of `all` and the link's counts,
    and a strict one drops what came by another way than the route back (RFC 3704).
    """
    for name in names:
        _write(root / "ipv4/conf" / name / "rp_filter", LOOSE)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _write(path: Path, value: str) -> None:
    """A link may be gone meanwhile; a sysctl that stays wrong is said, with what to do."""
    if _read(path) == value:
        return
    try:
        path.write_text(value)
    except FileNotFoundError:
        return
    except OSError as error:
        log.error(
            "sysctl not set: set it by hand, or let the daemon write to it",
            extra={"path": str(path), "wanted": value, "error": str(error)},
        )
