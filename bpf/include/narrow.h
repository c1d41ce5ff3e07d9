/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Clients from outside and the pods that answer them, through a tunnel that is narrower than the
 * links at both ends: neither can know. A connection's ends are told in its SYNs which segments
 * fit; who sends more all the same is told by an ICMP error. What routers may cut goes whole where
 * the tunnel's own packet may be cut.
 */
#ifndef WEFT_NARROW_H
#define WEFT_NARROW_H

#include "deliver.h"
#include "refuse.h"

/* Whatever comes before the segment size, which in practice is the first. */
#define TCP_OPTIONS_SOUGHT 10

/* The longest packet that the tunnel carries to where `to` is; 0: there is no tunnel. */
static u32 tunnel_carries(struct __sk_buff *skb, const struct packet *p, const struct settings *s,
			  const struct address *to)
{
	u32 mtu = tunnel_mtu(p, to), of_link = 0;

	if (!s->overlay_ifindex)
		return 0;
	bpf_check_mtu(skb, s->overlay_ifindex, &of_link, 0, 0);
	return mtu && mtu < of_link ? mtu : of_link;
}

/* Where the segment size is that a SYN names (RFC 9293 3.7.1); 0: it names none. */
static u32 find_segment_size(struct __sk_buff *skb, const struct packet *p, u32 end)
{
	u32 at = p->l4 + sizeof(struct tcphdr), i;
	u8 option[2];

	for (i = 0; i < TCP_OPTIONS_SOUGHT && at + TCP_OPTION_MSS_BYTES <= end; i++) {
		if (bpf_skb_load_bytes(skb, at, option, sizeof(option)) ||
		    option[0] == TCP_OPTION_END)
			return 0;
		if (option[0] == TCP_OPTION_MSS)
			return option[1] == TCP_OPTION_MSS_BYTES ? at + sizeof(option) : 0;
		if (option[0] != TCP_OPTION_NOTHING && option[1] < sizeof(option))
			return 0;
		at += option[0] == TCP_OPTION_NOTHING ? 1 : option[1];
	}
	return 0;
}

/* A checksum takes words: at an odd offset a number lies across two of them, its bytes swapped. */
static __be16 as_summed(__be16 number, u32 offset)
{
	return offset & 1 ? __builtin_bswap16(number) : number;
}

/* The other end is to send no segments that are too long for a packet of `mtu` bytes. */
static long limit_segments(struct __sk_buff *skb, const struct packet *p, u32 mtu)
{
	u32 headers = sizeof(struct tcphdr) +
		      (p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	__be16 most = BE16((u16)(mtu - headers)), said = 0;
	u8 offset = 0;
	u32 at;

	if (mtu <= headers ||
	    bpf_skb_load_bytes(skb, p->l4 + TCP_DATA_OFFSET, &offset, sizeof(offset)))
		return 0;
	at = find_segment_size(skb, p, p->l4 + (offset >> 4) * 4);
	if (!at || bpf_skb_load_bytes(skb, at, &said, sizeof(said)) || BE16(said) <= BE16(most))
		return 0;
	offset = at - p->l4;
	return bpf_l4_csum_replace(skb, p->l4 + checksum_offset(IPPROTO_TCP),
				   as_summed(said, offset), as_summed(most, offset),
				   sizeof(most)) ||
	       bpf_skb_store_bytes(skb, at, &most, sizeof(most), 0);
}

/*
 * A packet of a client's flow into the tunnel to where `to` is. REASON_TOO_BIG: not; with p->mtu set
 * its sender can be told. stack_cuts: the stack's route leads into the tunnel too.
 */
static enum reason into_tunnel(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			       const struct address *to, bool stack_cuts)
{
	if (fits_overlay(skb, p, s, to)) {
		if (p->tuple.proto == IPPROTO_TCP && (p->tcp_flags & TCP_SYN) && !p->fragment &&
		    limit_segments(skb, p, tunnel_carries(skb, p, s, to)))
			return REASON_HELPER_FAILED;
		return enter_overlay(p, s);
	}
	p->mtu = tunnel_carries(skb, p, s, to);
	if (p->may_cut && stack_cuts)
		return REASON_STACK;
	/* Linux cuts a tunnel's packet over IPv4, and drops it over IPv6. */
	if (p->mtu && p->may_cut && is_mapped(to))
		return enter_overlay(p, s);
	return REASON_TOO_BIG;
}

/* A pod's answer to a client, back to the node that brought it. */
static enum reason into_entry(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			      const struct workload *src, const struct flow *flow)
{
	enum reason reason = into_tunnel(skb, p, s, &flow->vip, false);

	if (reason != REASON_TOO_BIG || !p->mtu || !is_measurable(p))
		return reason;
	if (become_too_big(skb, p, p->mtu) || into_pod(skb, p, src) != REASON_DELIVERED)
		return REASON_HELPER_FAILED;
	return reason;
}

/* The same said to a client, of its packet as it came. */
static enum reason tell_client(struct __sk_buff *skb, struct packet *p)
{
	p->tuple = p->wire;
	if (!p->mtu || !is_measurable(p))
		return REASON_TOO_BIG;
	if (become_too_big(skb, p, p->mtu))
		return REASON_HELPER_FAILED;
	into_uplink(p, p->came_by);
	return REASON_TOO_BIG;
}

#endif
