/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An echo request for a Service's address, which no host has: the packet itself becomes the answer
 * and goes back into its pod, or out of the uplink that brought it. Who asks learns that the node
 * serves the address, nothing of its endpoints; policies are not asked, as for a refusal.
 */
#ifndef WEFT_ECHO_H
#define WEFT_ECHO_H

#include "deliver.h"
#include "parse.h"

#define ECHO_HOPS 64

struct hops4 {
	u8 hops;
	u8 proto;
};

/* Both addresses, side by side in either header, change places: no checksum notices. */
static long swap_ends(struct __sk_buff *skb, struct packet *p)
{
	struct address *ends = (void *)p->buffer;

	if (p->family == 4) {
		ends->word[0] = p->tuple.dst.word[3];
		ends->word[1] = p->tuple.src.word[3];
		return bpf_skb_store_bytes(skb, p->l3 + 12, ends, 2 * sizeof(__be32), 0);
	}
	ends[0] = p->tuple.dst;
	ends[1] = p->tuple.src;
	return bpf_skb_store_bytes(skb, p->l3 + 8, ends, 2 * sizeof(*ends), 0);
}

/* What is left of a request's hops may not be enough for the way back. */
static long renew_hops(struct __sk_buff *skb, const struct packet *p)
{
	struct hops4 old, new = {.hops = ECHO_HOPS, .proto = IPPROTO_ICMP};
	u32 at = p->l3 + 8;

	if (p->family == 6)
		return bpf_skb_store_bytes(skb, p->l3 + 7, &new.hops, 1, BPF_F_RECOMPUTE_CSUM);
	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
		return -1;
	return bpf_l3_csum_replace(skb, p->l3 + 10, *(u16 *)&old, *(u16 *)&new, sizeof(u16)) ||
	       bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
}

/* The type stands before the code, which is 0 in both. */
static long turn_type(struct __sk_buff *skb, const struct packet *p)
{
	u8 type = p->family == 4 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY;

	return bpf_l4_csum_replace(skb, p->l4 + 2, BE16((u16)(p->icmp_type << 8)),
				   BE16((u16)(type << 8)), sizeof(u16)) ||
	       bpf_skb_store_bytes(skb, p->l4, &type, sizeof(type), 0);
}

static long become_reply(struct __sk_buff *skb, struct packet *p)
{
	return swap_ends(skb, p) || renew_hops(skb, p) || turn_type(skb, p);
}

/* Back to a pod. */
static enum reason answer_echo(struct __sk_buff *skb, struct packet *p, const struct workload *src)
{
	if (become_reply(skb, p) || into_pod(skb, p, src) != REASON_DELIVERED)
		return REASON_HELPER_FAILED;
	return REASON_ANSWERED;
}

/* Back out of the uplink that a client's packet came by. */
static enum reason answer_echo_outside(struct __sk_buff *skb, struct packet *p)
{
	return become_reply(skb, p) ? REASON_HELPER_FAILED : into_uplink(p, p->came_by);
}

/* To the node itself, where its packet was about to leave. */
static enum reason answer_echo_here(struct __sk_buff *skb, struct packet *p)
{
	if (become_reply(skb, p) || into_node(skb, p) != REASON_STACK)
		return REASON_HELPER_FAILED;
	return REASON_ANSWERED;
}

#endif
