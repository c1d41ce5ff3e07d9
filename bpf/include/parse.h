/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From bytes to a struct packet. Direct access where the bytes are linear: load_bytes costs as much
 * as a look-up, but reads past the linear part and needs no bounds carried along.
 */
#ifndef WEFT_PARSE_H
#define WEFT_PARSE_H

#include "extension.h"
#include "icmp.h"
#include "packet.h"

#define IPV4_OPTIONS_MAX 40 /* bytes, so options too */
#define IPV4_OPTIONS_END 0
#define IPV4_NO_OPERATION 1
#define IPV4_LOOSE_ROUTE 131
#define IPV4_STRICT_ROUTE 137
/* The first `bytes` of the packet, contiguous; NULL: it is shorter. */
static void *head_of(struct __sk_buff *skb, u32 bytes)
{
	void *data = (void *)(long)skb->data;

	if (data + bytes <= (void *)(long)skb->data_end)
		return data;
	if (bpf_skb_pull_data(skb, bytes))
		return 0;
	data = (void *)(long)skb->data;
	return data + bytes <= (void *)(long)skb->data_end ? data : 0;
}

/* `bytes` of the transport header: at `direct` where that is in the linear part, else copied. */
static void *transport_of(struct __sk_buff *skb, struct packet *p, void *direct, u32 bytes)
{
	if (direct && direct + bytes <= (void *)(long)skb->data_end)
		return direct;
	return bpf_skb_load_bytes(skb, p->l4, p->buffer, bytes) ? 0 : p->buffer;
}

static enum reason parse_icmp(struct __sk_buff *skb, struct packet *p, void *direct)
{
	struct icmp_head *head = transport_of(skb, p, direct, sizeof(*head));

	if (!head || p->l4 + sizeof(*head) > p->end)
		return REASON_MALFORMED;
	p->icmp_type = head->type;
	if (is_icmp_echo(p->tuple.proto, p->icmp_type))
		p->tuple.sport = p->tuple.dport = head->id;
	else if (is_icmp_error(p))
		parse_embedded(skb, p);
	else if (p->tuple.proto == IPPROTO_ICMPV6)
		p->kind = icmp6_kind(p->icmp_type);
	return REASON_NONE;
}

static enum reason parse_tcp(struct __sk_buff *skb, struct packet *p, void *direct)
{
	struct tcphdr *head = transport_of(skb, p, direct, sizeof(*head));

	if (!head || p->l4 + sizeof(*head) > p->end)
		return REASON_MALFORMED;
	p->tuple.sport = head->source;
	p->tuple.dport = head->dest;
	p->tcp_flags = ((u8 *)head)[TCP_FLAGS_OFFSET];
	return REASON_NONE;
}

static enum reason parse_ports(struct __sk_buff *skb, struct packet *p, void *direct)
{
	__be16 *ends = transport_of(skb, p, direct, 8);

	if (!ends || p->l4 + 8 > p->end)
		return REASON_MALFORMED;
	p->tuple.sport = ends[0];
	p->tuple.dport = ends[1];
	return REASON_NONE;
}

/* direct: where the header is if it is linear; NULL: unknown. */
static enum reason parse_transport(struct __sk_buff *skb, struct packet *p, void *direct)
{
	if (p->fragment == FRAGMENT_LATER)
		return REASON_NONE;
	switch (p->tuple.proto) {
	case IPPROTO_TCP:
		return parse_tcp(skb, p, direct);
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		return parse_ports(skb, p, direct);
	case IPPROTO_ICMP:
		return p->family == 4 ? parse_icmp(skb, p, direct) : REASON_MALFORMED;
	case IPPROTO_ICMPV6:
		return p->family == 6 ? parse_icmp(skb, p, direct) : REASON_MALFORMED;
	}
	return REASON_NONE;
}

/*
 * RFC 791 3.1: a source route's destination is not where the packet ends. What does not read as
 * options stays: whoever gets it drops it (net/ipv4/ip_options.c).
 */
static bool has_source_route(struct __sk_buff *skb, u32 at, u32 end)
{
	u8 option[2];
	u32 i;

	for (i = 0; i < IPV4_OPTIONS_MAX && at < end; i++) {
		if (bpf_skb_load_bytes(skb, at, option, sizeof(option)))
			return false;
		if (option[0] == IPV4_LOOSE_ROUTE || option[0] == IPV4_STRICT_ROUTE)
			return true;
		if (option[0] == IPV4_OPTIONS_END)
			return false;
		at += option[0] == IPV4_NO_OPERATION ? 1 : option[1];
	}
	return false;
}

/* l3: offset of the network header, `ip`; a constant to the compiler, as in parse_ipv6. */
static enum reason parse_ipv4(struct __sk_buff *skb, struct packet *p, struct iphdr *ip, u32 l3)
{
	u32 header = ip->ihl * 4, total = BE16(ip->tot_len);
	u16 fragment = BE16(ip->frag_off);

	/* 0: a segment above 64 KiB (BIG TCP), as long as the buffer. */
	if (!total)
		total = skb->len - l3;
	if (ip->version != 4 || header < sizeof(*ip) || total < header ||
	    l3 + total > skb->len)
		return REASON_MALFORMED;
	p->family = 4;
	p->l3 = l3;
	p->l4 = l3 + header;
	p->end = total > 0xfff0 ? 0xfffe : l3 + total;
	set_ipv4(&p->tuple.src, ip->saddr);
	set_ipv4(&p->tuple.dst, ip->daddr);
	p->tuple.proto = ip->protocol;
	if (fragment & IPV4_FRAGMENT_OFFSET)
		p->fragment = FRAGMENT_LATER;
	else if (fragment & IPV4_FRAGMENT_MORE)
		p->fragment = FRAGMENT_FIRST;
	p->may_cut = !(fragment & IPV4_DONT_FRAGMENT);
	p->fragment_id = ip->id;
	p->fragment_proto = ip->protocol;
	if (header > sizeof(*ip)) {
		if (has_source_route(skb, l3 + sizeof(*ip), p->l4))
			return REASON_SOURCE_ROUTED;
		return parse_transport(skb, p, 0);
	}
	return parse_transport(skb, p, ip + 1);
}

static void note_fragment6(struct packet *p, const struct extension *e)
{
	p->fragment_id = e->fragment_id;
	if (e->fragment_offset & BE16(IPV6_FRAGMENT_OFFSET))
		p->fragment = FRAGMENT_LATER;
	else if (e->fragment_offset & BE16(1))
		p->fragment = FRAGMENT_FIRST;
}

/* RFC 8200 4: over the extension headers to the transport. */
static enum reason skip_extensions(struct __sk_buff *skb, struct packet *p)
{
	struct extension e = {};
	u32 bytes, i;

	for (i = 0; i < EXTENSIONS_MAX; i++) {
		if (!is_extension(p->tuple.proto))
			break;
		if (bpf_skb_load_bytes(skb, p->l4, &e, sizeof(e)))
			return REASON_MALFORMED;
		bytes = extension_bytes(p->tuple.proto, &e);
		if (p->tuple.proto == IPPROTO_FRAGMENT)
			note_fragment6(p, &e);
		/* RFC 8200 4.4: with segments left the destination is a router. */
		if (p->tuple.proto == IPPROTO_ROUTING && (e.fragment_offset & BE16(0xff)))
			return REASON_SOURCE_ROUTED;
		p->tuple.proto = e.next;
		p->l4 += bytes;
		if (p->fragment == FRAGMENT_LATER)
			return REASON_NONE;
	}
	/* Asked of memory: see skip_embedded_extensions. */
	asm volatile("" : : : "memory");
	return is_extension(p->tuple.proto) ? REASON_MALFORMED : REASON_NONE;
}

static enum reason parse_ipv6(struct __sk_buff *skb, struct packet *p, struct ipv6hdr *ip,
			      u32 l3)
{
	u32 payload = BE16(ip->payload_len);
	enum reason reason;

	/* 0: a jumbogram (RFC 2675), as long as the buffer. */
	if (!payload)
		payload = skb->len - l3 - sizeof(*ip);
	if (ip->version != 6 || l3 + sizeof(*ip) + payload > skb->len)
		return REASON_MALFORMED;
	p->family = 6;
	p->l3 = l3;
	p->l4 = l3 + sizeof(*ip);
	p->end = payload > 0xffa0 ? 0xfffe : p->l4 + payload;
	set_ipv6(&p->tuple.src, &ip->saddr);
	set_ipv6(&p->tuple.dst, &ip->daddr);
	p->tuple.proto = ip->nexthdr;
	if (is_mapped(&p->tuple.src) || is_mapped(&p->tuple.dst))
		return REASON_MAPPED_ADDRESS;
	if (!is_extension(p->tuple.proto))
		return parse_transport(skb, p, (void *)(ip + 1));
	reason = skip_extensions(skb, p);
	return reason ? reason : parse_transport(skb, p, 0);
}

/* REASON_NONE, or why the packet cannot be one that a pod may send or get. */
static enum reason parse(struct __sk_buff *skb, struct packet *p)
{
	struct ethhdr *eth = head_of(skb, ETH_HLEN + sizeof(struct iphdr));

	if (!eth)
		return REASON_MALFORMED;
	if (skb->vlan_present)
		return REASON_PROTOCOL_UNKNOWN;
	p->macs = *(struct macs *)eth;
	switch (eth->h_proto) {
	case BE16(ETH_P_IP):
		return parse_ipv4(skb, p, (void *)(eth + 1), ETH_HLEN);
	case BE16(ETH_P_IPV6):
		eth = head_of(skb, ETH_HLEN + sizeof(struct ipv6hdr));
		return eth ? parse_ipv6(skb, p, (void *)(eth + 1), ETH_HLEN) : REASON_MALFORMED;
	case BE16(ETH_P_ARP):
		p->kind = KIND_ARP;
		return REASON_NONE;
	}
	return REASON_PROTOCOL_UNKNOWN;
}

/* The same of a link without Ethernet, whose packets begin with the network header. */
static enum reason parse_layer3(struct __sk_buff *skb, struct packet *p)
{
	void *ip;

	switch (skb->protocol) {
	case BE16(ETH_P_IP):
		ip = head_of(skb, sizeof(struct iphdr));
		return ip ? parse_ipv4(skb, p, ip, 0) : REASON_MALFORMED;
	case BE16(ETH_P_IPV6):
		ip = head_of(skb, sizeof(struct ipv6hdr));
		return ip ? parse_ipv6(skb, p, ip, 0) : REASON_MALFORMED;
	}
	return REASON_PROTOCOL_UNKNOWN;
}

#endif
