/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP of both families: its kinds, and the packet that an error embeds. */
#ifndef WEFT_ICMP_H
#define WEFT_ICMP_H

#include "extension.h"
#include "packet.h"

struct icmp_head {
	u8 type;
	u8 code;
	__sum16 checksum;
	__be16 id;
	__be16 sequence;
};

static bool is_icmp_error(const struct packet *p)
{
	if (p->tuple.proto == IPPROTO_ICMPV6)
		return p->icmp_type >= ICMP6_UNREACHABLE && p->icmp_type <= ICMP6_PARAMETER_PROBLEM;
	return p->icmp_type == ICMP4_UNREACHABLE || p->icmp_type == ICMP4_TIME_EXCEEDED ||
	       p->icmp_type == ICMP4_PARAMETER_PROBLEM;
}

static bool is_icmp_echo(u8 proto, u8 type)
{
	if (proto == IPPROTO_ICMPV6)
		return type == ICMP6_ECHO || type == ICMP6_ECHO_REPLY;
	return type == ICMP4_ECHO || type == ICMP4_ECHO_REPLY;
}

static enum packet_kind icmp6_kind(u8 type)
{
	switch (type) {
	case ICMP6_MLD_QUERY ... ICMP6_MLD_DONE:
	case ICMP6_MLD2_REPORT:
	case ICMP6_ROUTER_SOLICIT:
	case ICMP6_NEIGHBOUR_SOLICIT:
	case ICMP6_NEIGHBOUR_ADVERT:
		return KIND_NEIGHBOUR;
	case ICMP6_ROUTER_ADVERT:
	case ICMP6_REDIRECT:
		return KIND_ROUTER;
	}
	return KIND_PLAIN;
}

/* The ports of the packet that an error embeds, where it has such; false: it is no flow's. */
static bool parse_embedded_ports(struct __sk_buff *skb, struct packet *p)
{
	struct icmp_head head = {};

	switch (p->embedded.proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		break;
	default:
		return true;
	}
	if (bpf_skb_load_bytes(skb, p->embedded_l4, &head, sizeof(head)))
		return false;
	if (p->embedded.proto == IPPROTO_ICMP || p->embedded.proto == IPPROTO_ICMPV6) {
		p->embedded.sport = p->embedded.dport = head.id;
		return is_icmp_echo(p->embedded.proto, head.type);
	}
	p->embedded.sport = *(__be16 *)&head.type;
	p->embedded.dport = head.checksum;
	return true;
}

/*
 * To the transport. Of a datagram in fragments only the first has ports: too big, says a router, and
 * of that one.
 */
static bool skip_embedded_extensions(struct __sk_buff *skb, struct packet *p)
{
	struct extension *e = (void *)p->buffer;
	u32 i;

	for (i = 0; i < EXTENSIONS_MAX; i++) {
		if (!is_extension(p->embedded.proto))
			break;
		if (bpf_skb_load_bytes(skb, p->embedded_l4, e, sizeof(*e)))
			return false;
		if (p->embedded.proto == IPPROTO_FRAGMENT &&
		    (e->fragment_offset & BE16(IPV6_FRAGMENT_OFFSET)))
			return false;
		p->embedded_l4 += extension_bytes(p->embedded.proto, e);
		p->embedded.proto = e->next;
	}
	/* Asked of memory: by what it knows of `i` the verifier would go on once for each round. */
	asm volatile("" : : : "memory");
	return !is_extension(p->embedded.proto);
}

static bool parse_embedded_ip(struct __sk_buff *skb, struct packet *p)
{
	u32 at = p->l4 + sizeof(struct icmp_head);

	if (p->family == 4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
			return false;
		set_ipv4(&p->embedded.src, ip.saddr);
		set_ipv4(&p->embedded.dst, ip.daddr);
		p->embedded.proto = ip.protocol;
		p->embedded_l4 = at + ip.ihl * 4;
		return !(ip.frag_off & BE16(IPV4_FRAGMENT_OFFSET));
	}
	struct ipv6hdr ip6;

	if (bpf_skb_load_bytes(skb, at, &ip6, sizeof(ip6)))
		return false;
	set_ipv6(&p->embedded.src, &ip6.saddr);
	set_ipv6(&p->embedded.dst, &ip6.daddr);
	p->embedded.proto = ip6.nexthdr;
	p->embedded_l4 = at + sizeof(ip6);
	return skip_embedded_extensions(skb, p);
}

/* An error counts as one only if it embeds what its receiver sent; else it is a plain packet. */
static void parse_embedded(struct __sk_buff *skb, struct packet *p)
{
	__builtin_memset(&p->embedded, 0, sizeof(p->embedded));
	if (parse_embedded_ip(skb, p) && parse_embedded_ports(skb, p) &&
	    same_address(&p->embedded.src, &p->tuple.dst))
		p->kind = KIND_ICMP_ERROR;
}

#endif
