/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Events: what a program tells the daemon of a packet. */
#ifndef WEFT_TELL_H
#define WEFT_TELL_H

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
	/* The end of the tunnel that brought it. */
	if (!p->translated)
		__builtin_memset(&event->vip, 0, sizeof(event->vip));
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

#endif
