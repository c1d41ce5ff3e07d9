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
	enum reason reason;

	if (!s || !(s->flags & SETTING_MASQUERADE) || !uplink || parse(skb, p))
		return REASON_NOT_OURS;
	/* A pod's, or the node's own about what it could not hand on to a pod. */
	if (p->kind == KIND_ICMP_ERROR)
		return masquerade_error(skb, p);
	if (!workloads.lookup(&p->tuple.src))
		return REASON_NOT_OURS;
	prefix = prefix_of(&p->tuple.dst);
	if (prefix && (prefix->flags & PREFIX_OUR_NETWORK))
		return REASON_NOT_OURS;
	if (!has_snat_port(p))
		return REASON_NOT_OURS;
	reason = know_fragment(p);
	if (reason)
		return reason;
	return masquerade(skb, p, s, p->family == 4 ? &uplink->addr4 : &uplink->addr6);
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
