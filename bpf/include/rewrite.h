/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * New addresses and ports in a packet, with checksums that stay right whether they are full,
 * partial (the pseudo header's only) or summed up by the device.
 *
 * IPv6 addresses are stored with BPF_F_RECOMPUTE_CSUM: no header checksum makes up for them, and
 * bpf_l4_csum_replace takes the pseudo header's change out of skb->csum all the same.
 */
#ifndef WEFT_REWRITE_H
#define WEFT_REWRITE_H

#include "parse.h"

enum end {
	END_SRC = 0,
	END_DST = 1,
};

struct end_change {
	struct address *old_addr;
	struct address *new_addr;
	__be16 old_port;
	__be16 new_port;
};

/* Of the checksum in the transport header; 0: the protocol's does not cover addresses or ports. */
static u32 checksum_offset(u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMPV6:
		return 2;
	}
	return 0;
}

/* A UDP checksum of 0 is none, and stays so. */
static u64 checksum_flags(u8 proto)
{
	return proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

/* The address at `at`; `checksum`: where a transport checksum covers it, else 0. */
static long store_address(struct __sk_buff *skb, const struct packet *p, u32 at,
			  struct end_change *change, u32 checksum, u64 flags)
{
	u32 old4 = change->old_addr->word[3], new4 = change->new_addr->word[3];
	s64 difference;

	if (p->family == 4) {
		if (checksum && bpf_l4_csum_replace(skb, checksum, old4, new4,
						    BPF_F_PSEUDO_HDR | flags | sizeof(old4)))
			return -1;
		return bpf_skb_store_bytes(skb, at, &new4, sizeof(new4), 0);
	}
	difference = bpf_csum_diff((__be32 *)change->old_addr, sizeof(struct address),
				   (__be32 *)change->new_addr, sizeof(struct address), 0);
	if (checksum &&
	    bpf_l4_csum_replace(skb, checksum, 0, difference, BPF_F_PSEUDO_HDR | flags))
		return -1;
	return bpf_skb_store_bytes(skb, at, change->new_addr, sizeof(struct address),
				   BPF_F_RECOMPUTE_CSUM);
}

static u32 address_offset(u8 family, enum end end)
{
	if (family == 4)
		return end == END_SRC ? 12 : 16;
	return end == END_SRC ? 8 : 24;
}

static long store_port(struct __sk_buff *skb, u32 at, struct end_change *change,
		       u32 checksum, u64 flags)
{
	if (change->old_port == change->new_port)
		return 0;
	if (checksum && bpf_l4_csum_replace(skb, checksum, change->old_port, change->new_port,
					    flags | sizeof(__be16)))
		return -1;
	return bpf_skb_store_bytes(skb, at, &change->new_port, sizeof(__be16), 0);
}

static long store_ip4_checksum(struct __sk_buff *skb, u32 header, struct end_change *change)
{
	return bpf_l3_csum_replace(skb, header + 10, change->old_addr->word[3],
				   change->new_addr->word[3], sizeof(__be32));
}

/* One end of the packet itself. ICMP echo has its identifier where the others have no port. */
static long rewrite_end(struct __sk_buff *skb, const struct packet *p, enum end end,
			struct end_change *change)
{
	u8 proto = p->tuple.proto;
	bool bare = p->fragment == FRAGMENT_LATER, icmp = false;
	u32 checksum = checksum_offset(proto), port = end == END_SRC ? 0 : 2;
	u64 flags = checksum_flags(proto);
	long failed = 0;

	if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		icmp = true;
		port = 4;
	}
	checksum = checksum && !bare ? p->l4 + checksum : 0;
	if (p->family == 4)
		failed = store_ip4_checksum(skb, p->l3, change);
	failed |= store_address(skb, p, p->l3 + address_offset(p->family, end), change,
				checksum, flags);
	if (failed || bare || !(icmp || proto == IPPROTO_TCP || proto == IPPROTO_UDP))
		return failed;
	if (proto == IPPROTO_ICMP)
		checksum = p->l4 + 2;
	return store_port(skb, p->l4 + port, change, checksum, flags);
}

/*
 * One end of what an ICMP error embeds. ICMPv4's checksum does not notice an embedded address:
 * the embedded header's own checksum makes up for it. Embedded transport checksums stay: nobody
 * can verify them over a cut packet.
 */
static long rewrite_embedded(struct __sk_buff *skb, const struct packet *p, enum end end,
			     struct end_change *change)
{
	u32 header = p->l4 + sizeof(struct icmp_head), checksum = p->l4 + 2;
	u32 at = header + address_offset(p->family, end), port = end == END_SRC ? 0 : 2;
	long failed;

	if (p->embedded.proto == IPPROTO_ICMP || p->embedded.proto == IPPROTO_ICMPV6)
		port = 4;
	if (p->family == 4) {
		failed = store_ip4_checksum(skb, header, change) |
			 bpf_skb_store_bytes(skb, at, &change->new_addr->word[3], 4, 0);
	} else {
		s64 difference = bpf_csum_diff((__be32 *)change->old_addr, 16,
					       (__be32 *)change->new_addr, 16, 0);

		failed = bpf_l4_csum_replace(skb, checksum, 0, difference, 0) |
			 bpf_skb_store_bytes(skb, at, change->new_addr, 16, 0);
	}
	return failed | store_port(skb, p->embedded_l4 + port, change, checksum, 0);
}

/*
 * An end of an ICMP error: what it embeds went the other way, so the other end there. The outer
 * source changes only where it is the flow's end: a router on the way speaks for itself.
 */
static long rewrite_error(struct __sk_buff *skb, const struct packet *p, enum end end,
			  struct end_change *change)
{
	const struct address *outer = end == END_SRC ? &p->wire.src : &p->wire.dst;
	u32 checksum = p->family == 6 ? p->l4 + 2 : 0;
	long failed = rewrite_embedded(skb, p, end == END_SRC ? END_DST : END_SRC, change);

	if (failed || !same_address(outer, change->old_addr))
		return failed;
	if (p->family == 4)
		failed = store_ip4_checksum(skb, p->l3, change);
	return failed | store_address(skb, p, p->l3 + address_offset(p->family, end), change,
				      checksum, 0);
}

/* From one tuple to another; both name the packet's ends, an ICMP error's the embedded ones'. */
static enum reason rewrite(struct __sk_buff *skb, const struct packet *p,
			   struct tuple *from, struct tuple *to)
{
	struct end_change src = {&from->src, &to->src, from->sport, to->sport};
	struct end_change dst = {&from->dst, &to->dst, from->dport, to->dport};
	long failed = 0;

	if (!same_address(&from->src, &to->src) || from->sport != to->sport)
		failed = p->kind == KIND_ICMP_ERROR ? rewrite_error(skb, p, END_SRC, &src)
						    : rewrite_end(skb, p, END_SRC, &src);
	if (!same_address(&from->dst, &to->dst) || from->dport != to->dport)
		failed |= p->kind == KIND_ICMP_ERROR ? rewrite_error(skb, p, END_DST, &dst)
						     : rewrite_end(skb, p, END_DST, &dst);
	return failed ? REASON_HELPER_FAILED : REASON_NONE;
}

#endif
