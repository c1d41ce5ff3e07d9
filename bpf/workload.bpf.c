/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A pod's link, host side. from_pod sees all that the pod sends and is where it is proven,
 * translated and judged; to_pod sees what reaches the pod through the node's stack.
 */
#include "kernel.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "fragment.h"
#include "flow.h"
#include "policy.h"
#include "service.h"
#include "translate.h"
#include "rewrite.h"
#include "deliver.h"
#include "recent.h"
#include "refuse.h"
#include "neighbour.h"
#include "leave.h"

/*
 * To a node's end of the overlay: masqueraded it would come from this node, and its inner source
 * could be any pod of this node. Pods' own tunnels among each other stay inside the overlay.
 */
static bool is_forged_tunnel(const struct packet *p, const struct settings *s)
{
	return (s->flags & SETTING_OVERLAY) && p->tuple.proto == IPPROTO_UDP &&
	       p->tuple.dport == s->overlay_port;
}

/* The way of a flow's first packet; PATH_NONE: there is none, *why says so. */
static enum flow_path choose_path(const struct packet *p, const struct settings *s,
				  const struct workload *src, const struct workload *dst,
				  enum reason *why)
{
	struct prefix *prefix;
	u32 flags;

	if (dst)
		return (src->flags | dst->flags) & WORKLOAD_NO_REDIRECT ? PATH_STACK
									: PATH_REDIRECT;
	prefix = prefix_of(&p->tuple.dst);
	flags = prefix ? prefix->flags : 0;
	if (flags & PREFIX_REMOTE)
		return (s->flags & SETTING_OVERLAY) && !(src->flags & WORKLOAD_NO_REDIRECT)
			       ? PATH_OVERLAY
			       : PATH_STACK;
	*why = REASON_NO_WORKLOAD;
	if ((flags & PREFIX_LOCAL) && !is_own_gateway(s, &p->tuple.dst))
		return PATH_NONE;
	*why = REASON_OVERLAY_SOURCE;
	if (is_forged_tunnel(p, s))
		return PATH_NONE;
	*why = REASON_NO_SERVICE;
	return flags & PREFIX_SERVICE ? PATH_NONE : PATH_STACK;
}

static enum reason go(struct __sk_buff *skb, struct packet *p, const struct settings *s,
		      const struct workload *dst, enum flow_path path)
{
	if (path == PATH_REDIRECT)
		return dst ? into_pod(skb, p, dst) : REASON_NO_WORKLOAD;
	if (path == PATH_OVERLAY)
		return into_overlay(skb, p, s);
	return REASON_STACK;
}

/* What goes to its client through the stack gets its VIP back in to_pod, which must know the flow. */
static enum reason translate_packet(struct __sk_buff *skb, struct packet *p,
				    const struct flow *flow, enum flow_path path)
{
	if (p->translated)
		return rewrite(skb, p, &p->wire, &p->tuple);
	if (path == PATH_STACK || !flow || !(flow->flags & FLOW_TRANSLATED) || !is_reply(p, flow))
		return REASON_NONE;
	return restore_vip(skb, p, flow);
}

static enum reason send_on(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			   struct flow *flow, const struct workload *src)
{
	enum flow_path path = flow ? flow->path : PATH_NONE;
	const struct workload *dst = 0;
	enum reason reason = REASON_NONE;

	if (flow && (flow->flags & FLOW_HAIRPIN))
		p->hairpin = 1;
	if (p->hairpin) {
		path = PATH_REDIRECT;
		dst = src;
	} else {
		if (path == PATH_NONE || path == PATH_REDIRECT)
			dst = workloads.lookup(&p->tuple.dst);
		if (path == PATH_NONE)
			path = choose_path(p, s, src, dst, &reason);
		if (path == PATH_NONE)
			return reason;
	}
	if (path == PATH_REDIRECT && dst && !fits(skb, dst->ifindex))
		path = PATH_STACK;
	reason = admit(p, s, flow, src, dst, path, 0);
	if (!reason)
		reason = remember_choice(p);
	if (!reason)
		reason = translate_packet(skb, p, flow, path);
	if (reason)
		return reason;
	reason = go(skb, p, s, dst, path);
	if (flow && !p->translated && !(flow->flags & FLOW_TRANSLATED))
		note(skb, p, reason, dst);
	return reason;
}

/*
 * What went to the stack and has no answer yet may have been a VIP's before its Service was known:
 * a client that goes on from one port would never get there.
 */
static bool may_be_for_vip(const struct packet *p, const struct flow *flow)
{
	return flow->path == PATH_STACK && !(flow->flags & FLOW_REPLIED) && !is_reply(p, flow) &&
	       p->kind != KIND_ICMP_ERROR;
}

/*
 * One port may dial two VIPs of a backend, or a VIP and the backend itself: one flow, whose answers
 * come from what was dialled last.
 */
static bool is_dialled_anew(const struct packet *p, const struct flow *flow)
{
	if (is_reply(p, flow) || p->kind == KIND_ICMP_ERROR)
		return false;
	if (!p->translated)
		return flow->flags & FLOW_TRANSLATED;
	return !(flow->flags & FLOW_TRANSLATED) || flow->vip_port != p->vip_port ||
	       !same_address(&flow->vip, &p->vip);
}

static enum reason leave_pod(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			     const struct workload *src)
{
	struct flow *flow = 0;

	/* An error that a pod sends for another is nobody's but its own. */
	if (p->kind == KIND_ICMP_ERROR && same_address(&p->embedded.dst, &p->tuple.src))
		flow = find_related(p, s);
	if (!flow)
		flow = find_flow(p, s);
	if (!flow || may_be_for_vip(p, flow)) {
		if (translate(p, s))
			return refuse(skb, p, src);
		/* A new choice starts a new flow, whatever was between the same ends before. */
		if (p->translated)
			flow = p->backend ? 0 : find_flow(p, s);
	}
	if (flow && is_dialled_anew(p, flow))
		flow = 0;
	return send_on(skb, p, s, flow, src);
}

static enum reason handle_from_pod(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	enum reason reason = parse(skb, p);
	struct workload *src;

	if (reason)
		return reason;
	if (p->kind == KIND_ARP)
		return judge_arp(skb, p);
	if (!s)
		return REASON_HELPER_FAILED;
	if (p->kind == KIND_NEIGHBOUR && is_on_link(s, &p->tuple.dst))
		return judge_neighbour(skb, p);
	if (p->kind == KIND_ROUTER)
		return REASON_ROUTER_ADVERT_SPOOFED;
	reason = recall(skb, p);
	if (reason)
		return reason;
	src = workloads.lookup(&p->tuple.src);
	if (!owns(skb, p, src))
		return REASON_SOURCE_SPOOFED;
	reason = know_fragment(p);
	return reason ? reason : leave_pod(skb, p, s, src);
}

int from_pod(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_FROM_POD);

	return p ? leave(skb, p, handle_from_pod(skb, p)) : TC_ACT_SHOT;
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

/* The stack's packet for a local pod, `dst`: judged here unless the sender's link did. */
static enum reason reach_pod(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			     const struct workload *dst)
{
	bool own_node = is_own_node(skb, p);
	struct flow *flow = 0;
	enum reason reason;

	if (p->kind == KIND_ICMP_ERROR)
		flow = find_related(p, s);
	if (!flow)
		flow = find_flow(p, s);
	/* Flows between pods come by the stack only where a link was too small for a packet. */
	if (!own_node && (!flow || flow->path != PATH_STACK) && is_forged(skb, p, s))
		return REASON_SOURCE_SPOOFED;
	reason = admit(p, s, flow, 0, dst, PATH_STACK, own_node ? FLOW_OWN_NODE : 0);
	if (!reason && flow && is_reply(p, flow) && (flow->flags & FLOW_TRANSLATED))
		reason = restore_vip(skb, p, flow);
	return reason ? reason : REASON_STACK;
}

/* A bridge floods what it has not learned yet: only the pod's own copy may make a flow. */
static bool is_flooded(const struct packet *p, const struct workload *dst)
{
	return !dst || !is_for_mac(p, dst->mac);
}

/* What neighbours say to each other goes unjudged; routed here it is a packet like any other. */
static bool is_neighbours(struct __sk_buff *skb, const struct packet *p, const struct settings *s)
{
	if (p->kind != KIND_NEIGHBOUR && p->kind != KIND_ROUTER)
		return p->kind == KIND_ARP;
	return skb->ingress_ifindex == 0 || is_on_link(s, &p->tuple.src);
}

static enum reason handle_to_pod(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	enum reason reason = parse(skb, p);
	struct workload *dst;

	if (reason)
		return reason;
	if (!s)
		return REASON_HELPER_FAILED;
	if (is_neighbours(skb, p, s))
		return REASON_STACK;
	dst = workloads.lookup(&p->tuple.dst);
	if ((s->flags & SETTING_BRIDGE) && is_flooded(p, dst))
		return REASON_FLOODED;
	if (!dst || dst->ifindex != skb->ifindex)
		return REASON_NO_WORKLOAD;
	reason = know_fragment(p);
	return reason ? reason : reach_pod(skb, p, s, dst);
}

int to_pod(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_TO_POD);

	return p ? leave(skb, p, handle_to_pod(skb, p)) : TC_ACT_SHOT;
}
