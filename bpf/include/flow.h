/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Conntrack. One entry a flow, keyed by its tuple after translation with the ends sorted.
 * Entries idle for longer than their protocol's limit count as absent; LRU takes them away.
 *
 * Two CPUs may handle one flow at once. Every field is written whole; `flags` is read, changed and
 * written, so a bit set by the other CPU in between can be lost: the next packet sets it again.
 */
#ifndef WEFT_FLOW_H
#define WEFT_FLOW_H

#include "packet.h"

/* Idle limits, seconds: kube-proxy's for TCP, nf_conntrack's for the rest. */
#define IDLE_TCP_ESTABLISHED_S 86400
#define IDLE_TCP_HALF_CLOSED_S 3600
#define IDLE_CLOSING_S 60
#define IDLE_REPLIED_S 180
#define IDLE_UNREPLIED_S 60

#define FLOW_FINS (FLOW_FIN_INITIATOR | FLOW_FIN_RESPONDER)

static bool is_by_stack(enum flow_path path)
{
	return path == PATH_STACK || path == PATH_MASKED || path == PATH_NAT;
}

static bool is_swapped(const struct tuple *t)
{
	const u64 *src = (const u64 *)&t->src, *dst = (const u64 *)&t->dst;

	if (src[1] != dst[1])
		return src[1] > dst[1];
	if (src[0] != dst[0])
		return src[0] > dst[0];
	return t->sport > t->dport;
}

/* The key of p->tuple's flow: the tuple itself where its ends are in order. */
static struct tuple *flow_key(struct packet *p)
{
	p->swapped = is_swapped(&p->tuple);
	if (!p->swapped)
		return &p->tuple;
	reverse_tuple(&p->tuple, &p->key);
	return &p->key;
}

static u32 idle_limit_s(u8 proto, u8 flags)
{
	if (flags & FLOW_CLOSING)
		return IDLE_CLOSING_S;
	if (!(flags & FLOW_REPLIED))
		return IDLE_UNREPLIED_S;
	if (proto != IPPROTO_TCP)
		return IDLE_REPLIED_S;
	return flags & FLOW_FINS ? IDLE_TCP_HALF_CLOSED_S : IDLE_TCP_ESTABLISHED_S;
}

static bool is_idle(const struct packet *p, const struct settings *s, u32 seen, u32 limit_s)
{
	return is_older(p->now, seen, limit_s, s);
}

static bool is_reply(const struct packet *p, const struct flow *flow)
{
	return p->swapped != !!(flow->flags & FLOW_INITIATOR_IS_DST);
}

/*
 * A SYN starts anew what was closing, and what its sender was not seen to have called: who may
 * answer, or is let through in the middle, may not call for that.
 */
static bool starts_anew(const struct packet *p, const struct flow *flow)
{
	return is_first_of_tcp(p) &&
	       ((flow->flags & (FLOW_CLOSING | FLOW_PICKED_UP)) || is_reply(p, flow));
}

/* The live flow of p->tuple, else NULL. */
static struct flow *find_flow(struct packet *p, const struct settings *s)
{
	struct flow *flow;

	flow = flows.lookup(flow_key(p));
	if (!flow || is_idle(p, s, flow->seen, idle_limit_s(p->tuple.proto, flow->flags)))
		return 0;
	return starts_anew(p, flow) ? 0 : flow;
}

/*
 * Whether `local`, the pod at the source of p->tuple (`leaving`) or at its destination, is the one
 * whose flow this is: another that got the address later inherits nothing.
 */
static bool is_held_by(const struct packet *p, const struct flow *flow,
		       const struct workload *local, bool leaving)
{
	bool initiates = leaving != is_reply(p, flow);
	u64 was = initiates ? flow->initiator_revision : flow->responder_revision;
	u64 now = initiates ? local->egress_revision : local->ingress_revision;

	return !((was ^ now) >> REVISION_HOLDER_SHIFT);
}

/* The live flow of p->tuple that `local` has part in, else NULL. */
static struct flow *find_own(struct packet *p, const struct settings *s,
			     const struct workload *local, bool leaving)
{
	struct flow *flow = find_flow(p, s);

	return flow && is_held_by(p, flow, local, leaving) ? flow : 0;
}

/* The flow of the packet that an ICMP error is about, seen from the error's sender. */
static struct flow *find_related(struct packet *p, const struct settings *s,
				 const struct workload *local, bool leaving)
{
	struct flow *flow;

	p->wire = p->tuple;
	reverse_tuple(&p->embedded, &p->tuple);
	flow = find_own(p, s, local, leaving);
	if (!flow)
		p->tuple = p->wire;
	return flow;
}

/*
 * What a packet of the pod `local` (`leaving`), or one for it, belongs to: its flow, an ICMP error
 * to the flow it is about. An error that a pod sends for another is nobody's but its own.
 */
static struct flow *find_any(struct packet *p, const struct settings *s,
			     const struct workload *local, bool leaving)
{
	struct flow *flow = 0;

	if (p->kind == KIND_ICMP_ERROR &&
	    (!leaving || same_address(&p->embedded.dst, &p->tuple.src)))
		flow = find_related(p, s, local, leaving);
	return flow ? flow : find_own(p, s, local, leaving);
}

static u8 flags_after(const struct packet *p, u8 flags, bool reply)
{
	if (reply)
		flags |= FLOW_REPLIED;
	if (p->tuple.proto != IPPROTO_TCP)
		return flags;
	if (p->tcp_flags & TCP_FIN)
		flags |= reply ? FLOW_FIN_RESPONDER : FLOW_FIN_INITIATOR;
	if ((p->tcp_flags & TCP_RST) || (flags & FLOW_FINS) == FLOW_FINS)
		flags |= FLOW_CLOSING;
	return flags;
}

/* An established packet writes nothing, but once a second. */
static void refresh_flow(const struct packet *p, const struct settings *s, struct flow *flow)
{
	u8 flags;

	if (p->kind == KIND_ICMP_ERROR)
		return;
	if (p->now - flow->seen >= s->hz)
		flow->seen = p->now;
	flags = flags_after(p, flow->flags, is_reply(p, flow));
	if (flags != flow->flags)
		flow->flags = flags;
}

/*
 * Writes the flow of p->tuple that this packet starts, or (`reply`) is seen of first: it comes from
 * the end that was called. A RST or an ICMP error starts none.
 */
static enum reason create_flow(struct packet *p, const struct workload *initiator,
			       const struct workload *responder, enum flow_path path, u8 flags,
			       bool reply)
{
	struct tuple *key = flow_key(p);
	struct flow flow = {};

	if ((p->tuple.proto == IPPROTO_TCP && (p->tcp_flags & TCP_RST)) || is_icmp_error(p))
		return REASON_NONE;
	flow.initiator_revision = initiator ? initiator->egress_revision : 0;
	flow.responder_revision = responder ? responder->ingress_revision : 0;
	if (p->translated) {
		flags |= FLOW_TRANSLATED;
		flow.vip_port = p->vip_port;
		flow.client_port = p->client_port;
	}
	flow.vip = p->vip;
	if (p->swapped != reply)
		flags |= FLOW_INITIATOR_IS_DST;
	flow.flags = flags_after(p, flags, reply);
	flow.path = path;
	flow.ifindex = p->came_by;
	flow.seen = p->now;
	p->is_new = 1;
	return flows.update(key, &flow) ? REASON_TABLE_FULL : REASON_NONE;
}

#endif
