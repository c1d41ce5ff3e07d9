/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SCTP to a Service. Its checksum covers the ports and no helper computes a CRC32c, so netfilter
 * translates it (proxy/plan/services_sctp.py), and the flow takes the stack both ways. The programs
 * say who may: from_pod and from_uplink refuse what has no endpoint and let the rest by untouched;
 * whoever hands on what netfilter has made of it judges both ends that are pods here.
 *
 * A pod's association has two flows of PATH_NAT: what it dialled (`vip` is set), which only lets
 * the answer in, and what netfilter made of that, which is judged.
 */
#ifndef WEFT_SCTP_H
#define WEFT_SCTP_H

#include "fragment.h"
#include "policy.h"
#include "translate.h"

/* RFC 9260 3.2 and 3.3.2: the common header is 12 bytes, then the first chunk's type. */
#define SCTP_CHUNK_OFFSET 12
#define SCTP_INIT 1

/* This node's own endpoints that one packet is judged against; with more it is dropped. */
#define SCTP_OWN_ENDPOINTS 8

static bool is_sctp(const struct packet *p)
{
	return p->tuple.proto == IPPROTO_SCTP;
}

/* Only an association's first packet asks a Service: those that there are survive every edit. */
static bool is_first_of_sctp(struct __sk_buff *skb, const struct packet *p)
{
	u8 chunk = 0;

	return p->fragment != FRAGMENT_LATER &&
	       !bpf_skb_load_bytes(skb, p->l4 + SCTP_CHUNK_OFFSET, &chunk, sizeof(chunk)) &&
	       chunk == SCTP_INIT;
}

/* A flow of a pod's to a VIP, as it was dialled. */
static bool is_dialled(const struct flow *flow)
{
	return flow->path == PATH_NAT && !is_unset(&flow->vip);
}

/* REASON_STACK where netfilter has an endpoint for this client. */
static enum reason judge_frontend(const struct packet *p, const struct frontend *frontend,
				  bool local)
{
	if ((frontend->flags & FRONTEND_RANGES) && !is_in_ranges(frontend, &p->tuple.src))
		return REASON_SOURCE_RANGE;
	if (local ? frontend->local_backends : frontend->backends)
		return REASON_STACK;
	return without_slot(frontend);
}

/*
 * An endpoint that is this node's is reached past every program: here is the only place to judge
 * it. Which endpoint netfilter will choose is not known, so a pod must be allowed all of these,
 * the first slots of those that it gets.
 */
static enum reason judge_own_endpoints(struct packet *p, const struct frontend *frontend,
				       const struct workload *src)
{
	struct slot_key key = {};
	struct slot *slot;
	u32 i;

	if (!src->egress_set)
		return REASON_NONE;
	if (frontend->ring_size > SCTP_OWN_ENDPOINTS)
		return REASON_POLICY_EGRESS;
	key.service = is_local_inside(frontend) ? frontend->local_service : frontend->service;
	for (i = 0; i < SCTP_OWN_ENDPOINTS; i++) {
		asm volatile("" : "+r"(i));
		if (i >= frontend->ring_size)
			break;
		key.index = i;
		slot = slots.lookup(&key);
		if (!slot || !allows(p, src->egress_set, src->egress_revision, &slot->addr,
				     slot->port))
			return REASON_POLICY_EGRESS;
	}
	return REASON_NONE;
}

/*
 * A pod's packet to a VIP that netfilter translates. REASON_NONE: it is none, REASON_STACK: it goes
 * there, another: what becomes of it instead.
 */
static enum reason dial_by_stack(struct __sk_buff *skb, struct packet *p, const struct settings *s,
				 struct flow *flow, const struct workload *src)
{
	bool dialled = flow && is_dialled(flow), first = is_first_of_sctp(skb, p);
	struct frontend *frontend;
	enum reason reason = REASON_STACK;

	if (p->kind != KIND_PLAIN)
		return dialled ? REASON_STACK : REASON_NONE;
	frontend = frontend_at(&p->tuple.dst, p->tuple.dport, IPPROTO_SCTP);
	if (!frontend && (first || !dialled))
		return REASON_NONE;
	if (frontend && first)
		reason = judge_frontend(p, frontend, is_local_inside(frontend));
	if (frontend && reason == REASON_STACK && judge_own_endpoints(p, frontend, src))
		return REASON_POLICY_EGRESS;
	if (reason != REASON_STACK)
		return reason;
	if (dialled) {
		refresh_flow(p, s, flow);
		return REASON_STACK;
	}
	p->vip = p->tuple.dst;
	reason = create_flow(p, src, 0, PATH_NAT, 0, false);
	return reason ? reason : REASON_STACK;
}

/* For a pod, from what netfilter says that it dialled; it knows nothing of the endpoint behind. */
static enum reason answer_by_stack(const struct packet *p, const struct settings *s,
				   struct flow *flow)
{
	if (!is_dialled(flow))
		return REASON_UNTRANSLATED;
	refresh_flow(p, s, flow);
	return REASON_STACK;
}

/* Whether netfilter bears the packet to the very pod that sent it. */
static bool take_hairpin_mark(struct __sk_buff *skb, const struct packet *p)
{
	if (!is_sctp(p) || skb->mark != MARK_HAIRPIN)
		return false;
	*(volatile __u32 *)&skb->mark = 0;
	return true;
}

/* A client's from outside, at what is a Service's: as above. */
static enum reason come_by_stack(struct __sk_buff *skb, struct packet *p,
				 const struct frontend *frontend)
{
	bool local = frontend->flags & (FRONTEND_LOCAL_INSIDE | FRONTEND_LOCAL_OUTSIDE);

	return is_first_of_sctp(skb, p) ? judge_frontend(p, frontend, local) : REASON_STACK;
}

/*
 * What the stack hands on for `pod` of this node, away from here: it was let by unjudged if
 * netfilter chose its destination.
 */
static enum reason judge_carried(struct packet *p, const struct settings *s,
				 const struct workload *pod)
{
	enum reason reason;

	if (p->kind != KIND_PLAIN)
		return REASON_NONE;
	reason = know_fragment(p);
	return reason ? reason : admit(p, s, find_own(p, s, pod, true), pod, 0, PATH_NAT, 0);
}

/* To a VIP still, where netfilter should have put an endpoint: its rules are gone, or the packet is
 * of no association that it knows. */
static bool is_untranslated(const struct packet *p)
{
	return p->kind == KIND_PLAIN && p->fragment != FRAGMENT_LATER &&
	       frontend_at(&p->tuple.dst, p->tuple.dport, IPPROTO_SCTP);
}

#endif
