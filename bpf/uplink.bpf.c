/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A link that leads outside. Pods' packets leave with the link's address and their answers get the
 * pod's back, before the stack sees them: netfilter and routing know pods' addresses both ways.
 * All else passes untouched, whatever is wrong with it: it is the node's own traffic. Only a pod's
 * address that is not its sender's goes no further.
 */
#include "kernel.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "fragment.h"
#include "flow.h"
#include "rewrite.h"
#include "masquerade.h"
#include "leave.h"

#define PREFIX_OUR_NETWORK (PREFIX_REMOTE | PREFIX_LOCAL | PREFIX_NO_MASQUERADE)

static bool is_layer3(const struct uplink *uplink)
{
	return uplink && (uplink->flags & UPLINK_LAYER3);
}

static enum reason handle_to_uplink(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	u32 ifindex = skb->ifindex, from = skb->ingress_ifindex;
	struct uplink *uplink = uplinks.lookup(&ifindex);
	struct workload *pod;
	struct prefix *prefix;
	struct address *addr;

	if (!s || !uplink || (is_layer3(uplink) ? parse_layer3(skb, p) : parse(skb, p)) ||
	    p->kind == KIND_ARP)
		return REASON_NOT_OURS;
	addr = p->family == 4 ? &uplink->addr4 : &uplink->addr6;
	/* Most of what leaves is the node's own, tunnels among it: no look-up for that. */
	pod = same_address(&p->tuple.src, addr) ? 0 : workloads.lookup(&p->tuple.src);
	/* Masqueraded, what was handed on under a pod's address would be the node's. */
	if (from && is_forged_by(from, p, s, pod))
		return REASON_SOURCE_SPOOFED;
	if (!(s->flags & SETTING_MASQUERADE))
		return REASON_NOT_OURS;
	/* A pod's, or the node's own about what it could not hand on to a pod. */
	if (p->kind == KIND_ICMP_ERROR)
		return masquerade_error(skb, p, s, pod);
	if (!pod && keeps_own_port(p, s, addr))
		return REASON_NOT_OURS;
	prefix = prefix_of(&p->tuple.dst);
	if (prefix && (prefix->flags & PREFIX_OUR_NETWORK))
		return REASON_NOT_OURS;
	if (pod && p->fragment && know_fragment(p))
		return REASON_FRAGMENT_UNKNOWN;
	return masquerade(skb, p, s, addr);
}

static enum reason handle_from_uplink(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	u32 ifindex = skb->ifindex;
	bool layer3;

	if (!s || !(s->flags & SETTING_MASQUERADE))
		return REASON_NOT_OURS;
	/* No look-up where every uplink has Ethernet. */
	layer3 = (s->flags & SETTING_LAYER3) && is_layer3(uplinks.lookup(&ifindex));
	if (layer3 ? parse_layer3(skb, p) : parse(skb, p))
		return REASON_NOT_OURS;
	if (p->kind == KIND_ICMP_ERROR)
		return restore_error(skb, p);
	return p->kind == KIND_PLAIN ? restore(skb, p, s) : REASON_NOT_OURS;
}

int to_uplink(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_TO_UPLINK);

	return p ? leave(skb, p, handle_to_uplink(skb, p)) : TC_ACT_SHOT;
}

int from_uplink(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_FROM_UPLINK);

	return p ? leave(skb, p, handle_from_uplink(skb, p)) : TC_ACT_SHOT;
}
