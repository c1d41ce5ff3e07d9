/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Multicast and broadcast: to whoever listens on the link. There is no flow, since nobody answers
 * from a group's address: each packet is judged, the sender's egress with the group as peer, and
 * where a bridge hands the copies out, each receiver's ingress with the sender as peer.
 */
#ifndef WEFT_GROUP_H
#define WEFT_GROUP_H

#include "fragment.h"
#include "neighbour.h"
#include "policy.h"

/* A subnet's own broadcast address is none: in a podCIDR it is an address that no pod has. */
static bool is_group(const struct address *a)
{
	return is_multicast(a) || (is_mapped(a) && a->word[3] == BE32(0xffffffff));
}

/*
 * The pod that sends the packet, by its source. To a group of its link it speaks from its
 * link-local address (RFC 6724 5, rule 2): there the link says who it is.
 */
static struct workload *sender(struct __sk_buff *skb, const struct packet *p,
			       const struct settings *s)
{
	if ((s->flags & SETTING_BRIDGE) && is_link_local6(&p->tuple.src) &&
	    is_group(&p->tuple.dst))
		return pod_of_link(skb, 6);
	return workloads.lookup(&p->tuple.src);
}

/*
 * No link brought it here. Nor do the pieces have one of what conntrack put together and the stack
 * cuts anew (net/ipv6/ip6_output.c, ip6_copy_metadata, 6.18), but those are no socket's.
 */
static bool is_own_node(struct __sk_buff *skb, const struct packet *p)
{
	if (skb->ingress_ifindex)
		return false;
	return p->family == 4 || !p->fragment || skb->sk;
}

static enum reason send_to_group(struct packet *p, const struct workload *src)
{
	__be16 port = judged_port(p, p->tuple.dport);

	return allows(p, src->egress_set, src->egress_revision, &p->tuple.dst, port)
		       ? REASON_STACK
		       : REASON_POLICY_EGRESS;
}

/* Whom to judge: the pod at the link that brought the packet where its address says nothing. */
static const struct address *speaker(struct __sk_buff *skb, const struct packet *p)
{
	u32 from = skb->ingress_ifindex;
	struct pod_link *link;

	if (!is_link_local6(&p->tuple.src))
		return &p->tuple.src;
	link = pod_links.lookup(&from);
	return link ? &link->addr6 : 0;
}

static enum reason hear_group(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	const struct workload *pod = pod_of_link(skb, p->family);
	const struct address *peer = speaker(skb, p);
	__be16 port;
	enum reason reason;

	if (!pod)
		return REASON_NO_WORKLOAD;
	/* The node's own, which reaches every pod of it. */
	if (is_own_node(skb, p))
		return REASON_STACK;
	if (!peer || is_forged(skb, p, s))
		return REASON_SOURCE_SPOOFED;
	reason = know_fragment(p);
	if (reason)
		return reason;
	port = judged_port(p, p->tuple.dport);
	return allows(p, pod->ingress_set, pod->ingress_revision, peer, port)
		       ? REASON_STACK
		       : REASON_POLICY_INGRESS;
}

#endif
