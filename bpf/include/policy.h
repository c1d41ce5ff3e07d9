/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Judging: one rule set's answer for one peer and port, and a flow's by both its ends' sets.
 * The cost is four look-ups whatever the number of policies.
 */
#ifndef WEFT_POLICY_H
#define WEFT_POLICY_H

#include "flow.h"

/* Of port_key: the set, the protocol, its pad and the whole port. */
#define PORT_KEY_BITS 96

static u64 peer_class(const struct address *peer)
{
	struct prefix_key key = {.prefix_len = 128, .addr = *peer};
	u64 *class = peers.lookup(&key.addr);

	if (!class)
		class = blocks.lookup(&key);
	return class ? *class : 0;
}

static u32 port_class(u64 set, u8 proto, __be16 port)
{
	struct port_key key = {.prefix_len = PORT_KEY_BITS, .proto = proto, .port = port};
	u32 *class;

	key.set_low = (u32)set;
	key.set_high = set >> 32;
	class = ports.lookup(&key);
	return class ? *class : 0;
}

/* Whether `set` lets `peer` through; leaves in p what an event says of it. Set 0 isolates not. */
static bool allows(struct packet *p, u64 set, u64 revision, const struct address *peer,
		   __be16 port)
{
	struct verdict_key key = {.set = set};
	struct verdict *verdict;
	u32 class;

	if (!set)
		return true;
	key.peer = peer_class(peer);
	class = port_class(set, p->tuple.proto, port);
	p->judged_set = set;
	p->judged_revision = revision;
	p->judged_peer = key.peer;
	p->judged_port_class = class;
	verdict = verdicts.lookup(&key);
	if (!verdict && key.peer) {
		key.peer = 0;
		verdict = verdicts.lookup(&key);
	}
	return verdict && (verdict->allow[(class >> 6) & 3] >> (class & 63) & 1);
}

/* ICMP has no port: only rules without ports speak of it. */
static __be16 judged_port(const struct packet *p, __be16 port)
{
	return p->tuple.proto == IPPROTO_ICMP || p->tuple.proto == IPPROTO_ICMPV6 ? 0 : port;
}

/*
 * Judges the flow of p->tuple as its first packet was: the initiator's egress and the responder's
 * ingress, where that end is a pod of this node; an absent end is not judged here.
 */
static enum reason judge(struct packet *p, bool reply, const struct workload *initiator,
			 const struct workload *responder)
{
	const struct address *initiator_addr = reply ? &p->tuple.dst : &p->tuple.src;
	const struct address *responder_addr = reply ? &p->tuple.src : &p->tuple.dst;
	__be16 port = judged_port(p, reply ? p->tuple.sport : p->tuple.dport);

	if (initiator && !allows(p, initiator->egress_set, initiator->egress_revision,
				 responder_addr, port))
		return REASON_POLICY_EGRESS;
	if (responder && !allows(p, responder->ingress_set, responder->ingress_revision,
				 initiator_addr, port))
		return REASON_POLICY_INGRESS;
	return REASON_NONE;
}

static bool is_fresh(const struct flow *flow, const struct workload *initiator,
		     const struct workload *responder)
{
	if (initiator && flow->initiator_revision != initiator->egress_revision)
		return false;
	return !responder || flow->responder_revision == responder->ingress_revision;
}

/* In the middle of a connection: nothing in the packet tells which end called. */
static bool is_midstream(const struct packet *p)
{
	return p->tuple.proto == IPPROTO_TCP && !p->translated &&
	       (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_ACK;
}

/*
 * A flow's judgement, by the flags it has or would get. Its own node reaches a pod whatever its
 * policies say; a pod itself, through a VIP, too. What was picked up in its middle passes where
 * either direction is allowed; *reply turns where only the other one is.
 */
static enum reason judge_flow(struct packet *p, bool *reply, const struct workload *initiator,
			      const struct workload *responder, enum flow_path path, u8 flags)
{
	bool turned;
	enum reason reason;

	if ((flags & FLOW_OWN_NODE) || path == PATH_HAIRPIN)
		return REASON_NONE;
	turned = (flags & FLOW_PICKED_UP) && !judge(p, !*reply, responder, initiator);
	reason = judge(p, *reply, initiator, responder);
	if (!reason || !turned)
		return reason;
	*reply = !*reply;
	return REASON_NONE;
}

/* The first packet that is seen of a flow. `src` and `dst` as admit has them. */
static enum reason start_flow(struct packet *p, const struct workload *src,
			      const struct workload *dst, enum flow_path path, u8 flags)
{
	const struct workload *initiator, *responder;
	bool reply = false;
	enum reason reason;

	if (is_midstream(p))
		flags |= FLOW_PICKED_UP;
	reason = judge_flow(p, &reply, src, dst, path, flags);
	if (reason)
		return reason;
	if (reply)
		flags &= ~FLOW_PICKED_UP;
	initiator = reply ? dst : src;
	responder = reply ? src : dst;
	asm volatile("" : "+r"(initiator), "+r"(responder));
	return create_flow(p, initiator, responder, path, flags, reply);
}

/*
 * Lets a packet of p->tuple pass or says why not. A known flow costs the comparison of revisions;
 * when one moved, its original tuple is judged again, replies too. `src` and `dst`: the packet's
 * ends that are to be judged here.
 */
static enum reason admit(struct packet *p, const struct settings *s, struct flow *flow,
			 const struct workload *src, const struct workload *dst,
			 enum flow_path path, u8 flags)
{
	const struct workload *initiator, *responder;
	enum reason reason;
	bool reply;

	if (!flow)
		return start_flow(p, src, dst, path, flags);
	reply = is_reply(p, flow);
	initiator = reply ? dst : src;
	responder = reply ? src : dst;
	/* LLVM would infer which end is NULL from `reply`, the verifier cannot follow that. */
	asm volatile("" : "+r"(initiator), "+r"(responder));
	if (!is_fresh(flow, initiator, responder)) {
		reason = judge_flow(p, &reply, initiator, responder, path, flow->flags);
		if (reason)
			return reason;
		if (initiator)
			flow->initiator_revision = initiator->egress_revision;
		if (responder)
			flow->responder_revision = responder->ingress_revision;
	}
	refresh_flow(p, s, flow);
	return REASON_NONE;
}

#endif
