/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A link that leads outside. Pods' packets leave with the link's address and their answers get the
 * pod's back, before the stack sees them: netfilter and routing know pods' addresses both ways.
 * All else passes untouched, whatever is wrong with it: it is the node's own traffic. Only a pod's
 * address that is not its sender's goes no further.
 */
#include "kernel.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "fragment.h"
#include "flow.h"
#include "rewrite.h"
#include "masquerade.h"
#include "deliver.h"
#include "north.h"
#include "reach.h"
#include "leave.h"

#define PREFIX_OUR_NETWORK (PREFIX_REMOTE | PREFIX_LOCAL | PREFIX_NO_MASQUERADE)

static bool is_layer3(const struct uplink *uplink)
{
	return uplink && (uplink->flags & UPLINK_LAYER3);
}

/* Whether a packet of `pod`, or of the node, may leave with the source that it has. */
static bool keeps_source(struct packet *p, const struct settings *s, const struct workload *pod,
			 const struct address *addr, const struct prefix *to)
{
	if (!pod && keeps_own_port(p, s, addr))
		return true;
	if (!pod)
		to = prefix_of(&p->tuple.dst);
	return to && (to->flags & PREFIX_OUR_NETWORK);
}

/* The node's own packet that begins something. Of a connection no more is asked, tunnels go on. */
static bool is_opening(const struct packet *p, const struct settings *s)
{
	if (p->kind != KIND_PLAIN)
		return false;
	if (p->tuple.proto == IPPROTO_TCP)
		return is_first_of_tcp(p);
	return p->tuple.proto != IPPROTO_UDP || p->tuple.dport != s->overlay_port;
}

/*
 * The node's own packet for a Service that no socket hook has translated: raw, ICMP, of a socket
 * outside of the cgroups that are hooked. What is served is the route's to bring elsewhere, nothing
 * else of a Service's leaves. REASON_NOT_OURS: none of this.
 */
static enum reason judge_own(struct packet *p, const struct settings *s)
{
	struct frontend *whole;
	struct prefix *prefix;
	enum reason reason;

	if (!is_opening(p, s))
		return REASON_NOT_OURS;
	whole = frontend_at(&p->tuple.dst, 0, 0);
	if (!whole) {
		prefix = prefix_of(&p->tuple.dst);
		return prefix && (prefix->flags & PREFIX_SERVICE) ? REASON_NO_SERVICE
								  : REASON_NOT_OURS;
	}
	if (whole->flags & FRONTEND_OTHER_PROXY)
		return REASON_NO_SERVICE;
	if (has_ports(p) && frontend_at(&p->tuple.dst, p->tuple.dport, p->tuple.proto))
		return REASON_NOT_OURS;
	reason = judge_whole(p, whole);
	return reason ? reason : REASON_NOT_OURS;
}

static enum reason answer_own(struct __sk_buff *skb, struct packet *p, enum reason reason)
{
	if (reason == REASON_ANSWERED)
		return answer_echo_here(skb, p);
	return reason == REASON_NO_BACKEND ? refuse_here(skb, p) : reason;
}

/* Where a pod's SCTP leaves netfilter has had its say: the endpoint that it chose is judged. */
static enum reason leave_sctp(struct packet *p, const struct settings *s,
			      const struct workload *pod)
{
	if (is_untranslated(p))
		return REASON_UNTRANSLATED;
	return pod ? judge_carried(p, s, pod) : REASON_NONE;
}

static enum reason handle_to_uplink(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	u32 ifindex = skb->ifindex, from = skb->ingress_ifindex;
	struct uplink *uplink = uplinks.lookup(&ifindex);
	struct workload *pod;
	struct address *addr;
	enum reason reason;
	struct prefix *to;
	struct flow *flow;
	bool passes_by;

	if (!s || !uplink || (is_layer3(uplink) ? parse_layer3(skb, p) : parse(skb, p)) ||
	    p->kind == KIND_ARP)
		return REASON_NOT_OURS;
	addr = p->family == 4 ? &uplink->addr4 : &uplink->addr6;
	/* Most of what leaves is the node's own, tunnels among it: no look-up for that. */
	pod = same_address(&p->tuple.src, addr) ? 0 : workloads.lookup(&p->tuple.src);
	/* Masqueraded, what was handed on under a pod's address would be the node's. */
	if (from && is_forged_by(from, p, s, pod))
		return REASON_SOURCE_SPOOFED;
	reason = is_sctp(p) ? leave_sctp(p, s, pod) : REASON_NONE;
	if (reason)
		return reason;
	to = pod ? prefix_of(&p->tuple.dst) : 0;
	/* Another proxy's rules were to translate it. */
	if (to && (to->flags & PREFIX_SERVICE))
		return REASON_NO_SERVICE;
	reason = from ? REASON_NOT_OURS : judge_own(p, s);
	if (reason != REASON_NOT_OURS)
		return answer_own(skb, p, reason);
	flow = find_carried(p, s);
	if (flow && is_reply(p, flow))
		return answer_outside(skb, p, s, flow);
	if (flow && p->kind == KIND_ICMP_ERROR)
		p->tuple = p->wire;
	/* A client's, on to a backend that would answer it past this node, is masqueraded anyway. */
	passes_by = flow && from && (!pod || flow->path == PATH_MASKED);
	if (!passes_by && !(s->flags & SETTING_MASQUERADE))
		return REASON_NOT_OURS;
	/* A pod's, or the node's own about what it could not hand on to a pod. */
	if (p->kind == KIND_ICMP_ERROR)
		return masquerade_error(skb, p, s, pod);
	if (!passes_by && keeps_source(p, s, pod, addr, to))
		return REASON_NOT_OURS;
	if (pod && p->fragment && know_fragment(p))
		return REASON_FRAGMENT_UNKNOWN;
	return masquerade(skb, p, s, addr);
}

/*
 * From elsewhere in the world for a pod of this node: the stack's to hand on, to_pod judges it. A
 * later fragment that overtook its first waits here, as nothing brings it back to there.
 */
static enum reason hand_on(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	if (skb->pkt_type != PACKET_HOST)
		return REASON_NOT_OURS;
	if (is_false_client(p, s, skb->ifindex))
		return REASON_SOURCE_SPOOFED;
	if (know_fragment(p) != REASON_FRAGMENT_UNKNOWN || !hold_stranger(skb, p, s))
		return REASON_NOT_OURS;
	p->target = s->hold_to_pod;
	p->to_link = TO_LINK;
	return REASON_HELD;
}

/*
 * For a pod of this node. Another node's pods come this way if it is on this link, or if a router
 * brings them, as the operator wants; this node's never.
 */
static enum reason arrive(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			  const struct workload *dst)
{
	struct prefix *from = prefix_of(&p->tuple.src);
	enum flow_path came;

	if (!from || !(from->flags & (PREFIX_REMOTE | PREFIX_LOCAL)))
		return hand_on(skb, p, s);
	if ((from->flags & PREFIX_LOCAL) || !is_way_of(from, skb->ifindex, s))
		return REASON_SOURCE_SPOOFED;
	/* A switch's copy for another host. */
	if (skb->pkt_type != PACKET_HOST)
		return REASON_NOT_OURS;
	p->hold = s->hold_to_pod;
	came = from->flags & PREFIX_DIRECT ? PATH_DIRECT : PATH_STACK;
	return reach_pod(skb, p, s, dst, came);
}

/* What answers to the node's address on behalf of others. */
static enum reason unmask(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	if (p->kind == KIND_ICMP_ERROR)
		return restore_error(skb, p);
	return p->kind == KIND_PLAIN ? restore(skb, p, s) : REASON_NOT_OURS;
}

/* Whether anybody's packets leave with this node's address. */
static bool may_be_masked(const struct settings *s)
{
	struct north_south *row;

	if (s->flags & SETTING_MASQUERADE)
		return true;
	row = north_south_row();
	return row && row->by_stack;
}

static enum reason handle_from_uplink(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	u32 ifindex = skb->ifindex;
	struct workload *dst;
	enum reason reason;
	bool layer3;

	if (!s)
		return REASON_NOT_OURS;
	/* No look-up where every uplink has Ethernet. */
	layer3 = (s->flags & SETTING_LAYER3) && is_layer3(uplinks.lookup(&ifindex));
	take_up(skb, p);
	if (layer3 ? parse_layer3(skb, p) : parse(skb, p))
		return REASON_NOT_OURS;
	dst = layer3 ? 0 : workloads.lookup(&p->tuple.dst);
	if (dst)
		return arrive(skb, p, s, dst);
	if (p->fragment == FRAGMENT_LATER && know_fragment(p)) {
		hold_copy(skb, p, s);
		return REASON_NOT_OURS;
	}
	reason = may_be_masked(s) ? unmask(skb, p, s) : REASON_NOT_OURS;
	return reason != REASON_NOT_OURS || layer3 ? reason : come_in(skb, p, s);
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

/* Whether a masqueraded pod's answer, or a client's packet to a Service, is under way here, as far
 * as is known. */
static bool is_for_pod(struct packet *p)
{
	struct snat *arriving = snat.lookup(&p->tuple);

	if (translations.lookup(&p->tuple))
		return true;
	return arriving && !is_itself(arriving, &p->tuple.dst, p->tuple.dport);
}

/* The copy of a later fragment from outside: back to the link that took it, if a pod's. */
static enum reason return_copy(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			       const struct held *held)
{
	p->is_copy = 1;
	if (!know_fragment(p))
		return is_for_pod(p) ? once_more(skb, p, held->ifindex) : REASON_FRAGMENT_UNKNOWN;
	p->hold = s->hold_to_pod;
	return REASON_FRAGMENT_UNKNOWN;
}

/* What came for a pod and was held comes by its link once more: another node's pod's by what leads
 * to that node, whichever link is remembered. */
static enum reason handle_held_to_pod(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	enum reason reason = parse_held(skb, p);
	struct prefix *prefix;
	struct held *held;
	u32 flags;

	if (reason)
		return reason;
	if (!s)
		return REASON_HELPER_FAILED;
	prefix = prefix_of(&p->tuple.src);
	flags = prefix ? prefix->flags : 0;
	if (prefix && (flags & PREFIX_REMOTE) && (flags & PREFIX_DIRECT))
		return once_more(skb, p, prefix->ifindex);
	if ((flags & PREFIX_REMOTE) && (s->flags & SETTING_OVERLAY))
		return once_more(skb, p, s->overlay_ifindex);
	held = held_as(p);
	if (!held)
		return REASON_FRAGMENT_UNKNOWN;
	return workloads.lookup(&p->tuple.dst) ? once_more(skb, p, held->ifindex)
					       : return_copy(skb, p, s, held);
}

int held_to_pod(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_HELD);

	return p ? leave(skb, p, handle_held_to_pod(skb, p)) : TC_ACT_SHOT;
}
