/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A link that leads outside. Pods' packets leave with the link's address and their answers get the
 * pod's back, before the stack sees them: netfilter and routing know pods' addresses both ways.
 * All else passes untouched, whatever is wrong with it: it is the node's own traffic.
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

static enum reason handle_to_uplink(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	u32 ifindex = skb->ifindex;
	struct uplink *uplink = uplinks.lookup(&ifindex);
	struct prefix *prefix;
	struct address *addr;
	bool is_pods;

	if (!s || !(s->flags & SETTING_MASQUERADE) || !uplink || parse(skb, p))
		return REASON_NOT_OURS;
	/* A pod's, or the node's own about what it could not hand on to a pod. */
	if (p->kind == KIND_ICMP_ERROR)
		return masquerade_error(skb, p);
	if (!has_snat_port(p))
		return REASON_NOT_OURS;
	addr = p->family == 4 ? &uplink->addr4 : &uplink->addr6;
	/* Most of what leaves is the node's own, tunnels among it: no look-up for that. */
	is_pods = !same_address(&p->tuple.src, addr) && workloads.lookup(&p->tuple.src);
	if (!is_pods && keeps_own_port(p, s, addr))
		return REASON_NOT_OURS;
	prefix = prefix_of(&p->tuple.dst);
	if (prefix && (prefix->flags & PREFIX_OUR_NETWORK))
		return REASON_NOT_OURS;
	if (is_pods && p->fragment && know_fragment(p))
		return REASON_FRAGMENT_UNKNOWN;
	return masquerade(skb, p, s, addr);
}

static enum reason handle_from_uplink(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();

	if (!s || !(s->flags & SETTING_MASQUERADE) || parse(skb, p))
		return REASON_NOT_OURS;
	if (p->kind == KIND_ICMP_ERROR)
		return restore_error(skb, p);
	return has_snat_port(p) ? restore(skb, p, s) : REASON_NOT_OURS;
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
