/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one way out of every program on a link: holds what may be known in a moment, counts the
 * reason, tells of drops and sampled new flows, then acts. "Pass" is TC_ACT_UNSPEC, so that
 * programs of others run after ours.
 */
#ifndef WEFT_LEAVE_H
#define WEFT_LEAVE_H

#include "count.h"
#include "hold.h"
#include "packet.h"
#include "tell.h"

static bool is_sampled(const struct packet *p)
{
	struct settings *s = settings_row();

	return p->is_new && s && s->event_sample && bpf_get_prandom_u32() % s->event_sample == 0;
}

/* BCC's declaration lacks the length. */
static long (*redirect_neighbour)(u32 ifindex, struct bpf_redir_neigh *to, int bytes,
				  u64 flags) = (void *)BPF_FUNC_redirect_neigh;

static int leave(struct __sk_buff *skb, struct packet *p, enum reason reason)
{
	struct address *owner = entry_of(p);

	if (reason >= REASON_DROPS && p->hold &&
	    hold(skb, p, reason, owner ? owner : &p->tuple.src)) {
		p->target = p->hold;
		p->to_link = TO_LINK;
		reason = REASON_HELD;
	} else if (p->is_copy && reason >= REASON_DROPS) {
		reason = REASON_NOT_OURS;
	}
	count(reason, p->direction, skb->len);
	if (reason >= REASON_DROPS || is_sampled(p))
		tell(skb, p, reason);
	if (!p->target)
		return reason >= REASON_DROPS || p->is_copy ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	if (p->to_link == TO_NEIGHBOUR)
		return redirect_neighbour(p->target, &p->next_hop, sizeof(p->next_hop), 0);
	if (p->to_link == TO_ROUTE)
		return redirect_neighbour(p->target, 0, 0, 0);
	if (p->to_link)
		return bpf_redirect(p->target, 0);
	if (p->again)
		return bpf_redirect(p->target, BPF_F_INGRESS);
	return bpf_redirect_peer(p->target, 0);
}

#endif
