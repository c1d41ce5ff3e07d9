/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a pod's last packets came to, for the rest of the tick (a jiffy, 1 to 10 ms): a busy flow's
 * packets differ in nothing that decides, and three look-ups cost as much as all the rest. Direct
 * mapped and per CPU, so nothing is locked and a collision only costs the look-ups.
 *
 * A packet that is recalled was proven, judged and delivered alike within the same tick, on the
 * same CPU; rows that changed in between take effect with the next tick. Whatever changes a flow
 * (SYN, FIN, RST), starts one, is rewritten, or is a fragment takes the whole way.
 */
#ifndef WEFT_RECENT_H
#define WEFT_RECENT_H

#include "deliver.h"

#define RECENT_SLOTS 256 /* a power of two */

struct recent {
	struct tuple tuple;
	struct macs came;
	struct macs went;
	struct bpf_redir_neigh next_hop;
	u32 now;
	u32 ifindex;
	u32 target;
	u32 to_link;
	u32 mtu; /* see fits_tunnel */
};

BPF_TABLE("percpu_array", u32, struct recent, recents, RECENT_SLOTS);

static bool is_repetition(const struct packet *p)
{
	if (p->fragment || p->kind != KIND_PLAIN)
		return false;
	if (p->tuple.proto == IPPROTO_TCP)
		return !(p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST));
	return p->tuple.proto == IPPROTO_UDP;
}

static struct recent *recent_slot(const struct packet *p)
{
	const struct tuple *t = &p->tuple;
	u32 mix = (t->src.word[3] ^ t->dst.word[3]) * 0x9e3779b1 + ((u32)t->sport << 16 | t->dport);
	u32 index = (mix * 0x85ebca6b) >> 24 & (RECENT_SLOTS - 1);

	return recents.lookup(&index);
}

static bool same_tuple(const struct tuple *a, const struct tuple *b)
{
	const u64 *x = (const u64 *)a, *y = (const u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]));
}

static bool is_same_sender(const struct __sk_buff *skb, const struct packet *p,
			   const struct recent *one)
{
	return one->ifindex == skb->ifindex && one->came.src_high == p->macs.src_high &&
	       one->came.src_low == p->macs.src_low;
}

/* As a packet of this tick went; REASON_NONE: none like it did. */
static enum reason recall(struct __sk_buff *skb, struct packet *p)
{
	struct recent *one = is_repetition(p) ? recent_slot(p) : 0;

	if (!one || one->now != p->now || !same_tuple(&one->tuple, &p->tuple) ||
	    !is_same_sender(skb, p, one) || !fits(skb, one->target) ||
	    !fits_tunnel(skb, p, one->mtu))
		return REASON_NONE;
	p->to_link = one->to_link;
	p->target = one->target;
	if (p->to_link == TO_LINK)
		return REASON_TUNNELLED;
	if (p->to_link == TO_NEIGHBOUR) {
		p->next_hop = one->next_hop;
		return REASON_DIRECT;
	}
	return enter_pod(skb, &one->went) ? REASON_HELPER_FAILED : REASON_DELIVERED;
}

/* After `reason`, for the next packets like this one. */
static void note(const struct __sk_buff *skb, const struct packet *p, enum reason reason,
		 const struct workload *to)
{
	struct recent *one;

	if (!is_repetition(p) || !p->target || reason >= REASON_DROPS)
		return;
	one = recent_slot(p);
	if (!one)
		return;
	one->tuple = p->tuple;
	one->came = p->macs;
	if (to)
		one->went = *(const struct macs *)to->mac;
	one->now = p->now;
	one->ifindex = skb->ifindex;
	one->target = p->target;
	if (p->to_link == TO_NEIGHBOUR)
		one->next_hop = p->next_hop;
	one->to_link = p->to_link;
	one->mtu = p->mtu;
}

#endif
