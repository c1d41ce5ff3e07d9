"""Owns the reverse-path filters of a hardened node, IPv6's as firewalld has it."""

from deploy.netlab import LabNode

# firewalld's IPv6_rpfilter=strict: a chain before conntrack's; discovery comes from link-local and
# unspecified addresses.
FIREWALLD = """
table inet strict_paths {
	chain before {
		type filter hook prerouting priority 10
		icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
		meta nfproto ipv6 fib saddr . iif oif missing counter drop
	}
}
"""
RP_FILTERS = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done"


def take_strict_paths(*nodes: LabNode) -> None:
    """From now on they drop what comes by another link than the one that leads back."""
    for node in nodes:
        node.run("sh", "-c", RP_FILTERS)
        node.run("nft", FIREWALLD)
