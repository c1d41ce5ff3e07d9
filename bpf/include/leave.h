/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one way out of every program on a link: counts the reason, tells of drops and sampled new
 * flows, then acts. "Pass" is TC_ACT_UNSPEC, so that programs of others run after ours.
 */
#ifndef WEFT_LEAVE_H
#define WEFT_LEAVE_H

#include "count.h"
#include "packet.h"

/*
 * The kernel wakes the daemon only for an event behind which it has read all others, so a storm
 * of drops is no storm of wake-ups. BPF_RB_NO_WAKEUP would never wake its epoll.
 */
static void tell(struct __sk_buff *skb, const struct packet *p, enum reason reason)
{
	struct event *event = events.ringbuf_reserve(sizeof(struct event));

	if (!event)
		return;
	event->time_ns = bpf_ktime_get_ns();
	event->set = p->judged_set;
	event->revision = p->judged_revision;
	event->peer = p->judged_peer;
	event->tuple = p->tuple;
	event->vip = p->vip;
	event->vip_port = p->vip_port;
	event->reason = reason;
	event->direction = p->direction;
	event->port_class = p->judged_port_class;
	event->tcp_flags = p->tcp_flags;
	event->family = p->family;
	event->pad0 = 0;
	event->ifindex = skb->ifindex;
	event->bytes = skb->len;
	events.ringbuf_submit(event, 0);
}

static bool is_sampled(const struct packet *p)
{
	struct settings *s = settings_row();

	return p->is_new && s && s->event_sample && bpf_get_prandom_u32() % s->event_sample == 0;
}

static int leave(struct __sk_buff *skb, struct packet *p, enum reason reason)
{
	count(reason, p->direction, skb->len);
	if (reason >= REASON_DROPS || is_sampled(p))
		tell(skb, p, reason);
	if (!p->target)
		return reason >= REASON_DROPS ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	if (p->to_link)
		return bpf_redirect(p->target, 0);
	return bpf_redirect_peer(p->target, 0);
}

#endif
