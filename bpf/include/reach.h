/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What another node brings for a pod of this one, through the overlay or straight over their link.
 * Whoever calls this has proven the source: the node that sent it owns it.
 */
#ifndef WEFT_REACH_H
#define WEFT_REACH_H

#include "deliver.h"
#include "fragment.h"
#include "policy.h"
#include "translate.h"

/* Its client comes by another node now, or did not come by a node before. */
static void follow_entry(const struct packet *p, struct flow *flow)
{
	if (is_reply(p, flow) || (flow->flags & FLOW_TRANSLATED))
		return;
	if (flow->path != PATH_ENTRY)
		flow->path = PATH_ENTRY;
	if (!same_address(&flow->vip, &p->vip))
		flow->vip = p->vip;
}

/* Judged here, delivered past the stack unless its flow takes that. came: how this one did. */
static enum reason reach_pod(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			     const struct workload *dst, enum flow_path came)
{
	bool stacked = dst->flags & WORKLOAD_NO_REDIRECT;
	/* An answer that must go back through the tunnel cannot take the stack. */
	enum flow_path path = stacked && came != PATH_ENTRY ? PATH_STACK : came;
	enum reason reason;
	struct flow *flow;

	/* Of neighbours: its hop limit would prove it to be one's. */
	if (p->kind == KIND_NEIGHBOUR || p->kind == KIND_ROUTER)
		return REASON_NEIGHBOUR_SPOOFED;
	reason = know_fragment(p);
	if (reason)
		return reason;
	flow = find_any(p, s, dst, false);
	/* Which of the two ways it came is the sender's to choose, and may change. */
	if (flow && came == PATH_ENTRY)
		follow_entry(p, flow);
	else if (flow)
		path = is_by_stack(flow->path) ? PATH_STACK : came;
	reason = admit(p, s, flow, 0, dst, path, 0);
	if (reason)
		return reason;
	/* What takes the stack gets its VIP back in to_pod. */
	if (path == PATH_STACK || (stacked && came == PATH_ENTRY) || !fits(skb, dst->ifindex))
		return REASON_STACK;
	if (flow && is_reply(p, flow) && (flow->flags & FLOW_TRANSLATED))
		reason = restore_vip(skb, p, flow);
	return reason ? reason : into_pod(skb, p, dst);
}

#endif
