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

static enum reason send_to_group(struct packet *p, const struct workload *src)
{
	__be16 port = judged_port(p, p->tuple.dport);

	return allows(p, src->egress_set, src->egress_revision, &p->tuple.dst, port)
		       ? REASON_STACK
		       : REASON_POLICY_EGRESS;
}

static enum reason hear_group(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	const struct workload *pod = pod_of_link(skb, p->family);
	__be16 port;
	enum reason reason;

	if (!pod)
		return REASON_NO_WORKLOAD;
	/* The node's own, which reaches every pod of it. */
	if (!skb->ingress_ifindex)
		return REASON_STACK;
	if (is_forged(skb, p, s))
		return REASON_SOURCE_SPOOFED;
	reason = know_fragment(p);
	if (reason)
		return reason;
	port = judged_port(p, p->tuple.dport);
	return allows(p, pod->ingress_set, pod->ingress_revision, &p->tuple.src, port)
		       ? REASON_STACK
		       : REASON_POLICY_INGRESS;
}

#endif
