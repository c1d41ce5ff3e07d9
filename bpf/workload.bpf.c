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
#include "echo.h"
#include "narrow.h"
#include "neighbour.h"
#include "mask.h"
#include "group.h"
#include "leave.h"
#include "sctp.h"

/*
 * To where nodes end their tunnels, or ask each other whose an address is: masqueraded it would
 * come from this node, and its inner source could be any pod of this node. Pods' own tunnels among
 * each other stay inside the overlay.
 */
static bool is_forged_tunnel(const struct packet *p, const struct settings *s)
{
	return p->tuple.proto == IPPROTO_UDP && p->tuple.dport &&
	       (p->tuple.dport == s->overlay_port || p->tuple.dport == s->ask_port);
}

/* Its netfilter rules may translate it; what they leave as it is goes no further than to_uplink. */
static bool is_other_proxys(const struct address *addr)
{
	struct frontend *whole = frontend_at(addr, 0, 0);

	return whole && (whole->flags & FRONTEND_OTHER_PROXY);
}

/*
 * The way to p->tuple's destination: the local pod `dst`, or else in the range `to`. PATH_NONE:
 * there is none, *why says so.
 */
static enum flow_path choose_path(const struct packet *p, const struct settings *s,
				  const struct workload *src, const struct workload *dst,
				  const struct prefix *to, enum reason *why)
{
	u32 flags = to ? to->flags : 0;

	if (dst)
		return (src->flags | dst->flags) & WORKLOAD_NO_REDIRECT ? PATH_STACK
									: PATH_REDIRECT;
	if (flags & PREFIX_REMOTE) {
		if (src->flags & WORKLOAD_NO_REDIRECT)
			return PATH_STACK;
		if (flags & PREFIX_DIRECT)
			return PATH_DIRECT;
		return s->flags & SETTING_OVERLAY ? PATH_OVERLAY : PATH_STACK;
	}
	*why = REASON_NO_WORKLOAD;
	if ((flags & PREFIX_LOCAL) && !is_own_gateway(s, &p->tuple.dst))
		return PATH_NONE;
	*why = REASON_TUNNEL_FORGED;
	if (is_forged_tunnel(p, s))
		return PATH_NONE;
	*why = REASON_NO_SERVICE;
	return (flags & PREFIX_SERVICE) && !is_other_proxys(&p->tuple.dst) ? PATH_NONE : PATH_STACK;
}

/* Ways between nodes come and go; the next hop of a direct one is looked up anyway. */
static bool is_standing(const struct settings *s, enum flow_path path)
{
	if (path == PATH_OVERLAY)
		return s->flags & SETTING_OVERLAY;
	return path != PATH_NONE && path != PATH_DIRECT;
}

static enum reason go(struct __sk_buff *skb, struct packet *p, const struct settings *s,
		      const struct workload *src, const struct workload *dst,
		      const struct prefix *to, const struct flow *flow, enum flow_path path)
{
	if (path == PATH_HAIRPIN)
		return into_pod(skb, p, src);
	if (path == PATH_REDIRECT)
		return dst ? into_pod(skb, p, dst) : REASON_NO_WORKLOAD;
	if (path == PATH_OVERLAY)
		return into_overlay(skb, p, s);
	if (path == PATH_ENTRY && flow)
		return into_entry(skb, p, s, src, flow);
	if (path == PATH_UPLINK && flow)
		return into_uplink(p, flow->ifindex);
	if (path == PATH_DIRECT && to)
		return into_neighbour(skb, p, to);
	return path == PATH_NAT ? into_netfilter(skb, p, s) : REASON_STACK;
}

/* A pod that reaches itself is the end that answers; the one that asks bears the node's address. */
static enum reason admit_hairpin(struct packet *p, const struct settings *s, struct flow *flow,
				 const struct workload *pod)
{
	bool reply = flow && is_reply(p, flow);
	const struct workload *src = reply ? pod : 0, *dst = reply ? 0 : pod;

	asm volatile("" : "+r"(src), "+r"(dst));
	return admit(p, s, flow, src, dst, PATH_HAIRPIN, 0);
}

/* What goes to its client through the stack gets its VIP back in to_pod, which must know the flow. */
static enum reason translate_packet(struct __sk_buff *skb, struct packet *p,
				    const struct flow *flow, enum flow_path path)
{
	if (p->translated)
		return rewrite(skb, p, &p->wire, &p->tuple);
	if (is_by_stack(path) || !flow || !(flow->flags & FLOW_TRANSLATED) || !is_reply(p, flow))
		return REASON_NONE;
	return restore_vip(skb, p, flow);
}

static enum reason send_on(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			   struct flow *flow, const struct workload *src)
{
	enum flow_path path = p->hairpin ? PATH_HAIRPIN : flow ? flow->path : PATH_NONE;
	const struct workload *dst = 0;
	const struct prefix *to = 0;
	enum reason reason = REASON_NONE;
	bool hairpin = path == PATH_HAIRPIN;

	if (path == PATH_NONE || path == PATH_REDIRECT)
		dst = workloads.lookup(&p->tuple.dst);
	if (flow && dst && !is_held_by(p, flow, dst, false)) {
		flow = 0;
		path = PATH_NONE;
	}
	if (!is_standing(s, path)) {
		to = dst ? 0 : prefix_of(&p->tuple.dst);
		path = choose_path(p, s, src, dst, to, &reason);
		if (path == PATH_NONE)
			return reason;
		if (!flow && starts_masked(p, s, true)) {
			path = PATH_MASKED;
			by_stack();
		}
		if (flow && flow->path != path)
			flow->path = path;
	}
	if (path == PATH_REDIRECT && dst && !fits(skb, dst->ifindex))
		path = PATH_STACK;
	/* The stack's error must name the pod; it sends what it cuts itself from the VIP. */
	if (path == PATH_UPLINK && flow && !fits(skb, flow->ifindex)) {
		by_stack();
		path = PATH_STACK;
	}
	reason = hairpin ? admit_hairpin(p, s, flow, src) : admit(p, s, flow, src, dst, path, 0);
	if (!reason)
		reason = remember_choice(p);
	if (!reason)
		reason = translate_packet(skb, p, flow, path);
	if (reason)
		return reason;
	reason = go(skb, p, s, src, dst, to, flow, path);
	if (flow && !p->translated && !(flow->flags & FLOW_TRANSLATED))
		note(skb, p, reason, dst);
	return reason;
}

static enum reason leave_pod(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			     const struct workload *src)
{
	struct flow *flow = find_any(p, s, src, true);
	enum reason reason;

	if (is_sctp(p) && (!flow || is_dialled(flow) || may_be_for_vip(p, flow))) {
		reason = dial_by_stack(skb, p, s, flow, src);
		if (reason)
			return reason == REASON_NO_BACKEND ? refuse(skb, p, src)
			       : reason == REASON_STACK	   ? into_netfilter(skb, p, s)
							   : reason;
		if (flow && is_dialled(flow))
			flow = 0;
	}
	if (!flow || may_be_for_vip(p, flow)) {
		reason = translate(p, s);
		if (reason == REASON_ANSWERED)
			return answer_echo(skb, p, src);
		if (reason)
			return reason == REASON_NO_BACKEND ? refuse(skb, p, src) : reason;
		/* A new choice starts a new flow, whatever was between the same ends before. */
		if (p->translated)
			flow = p->backend ? 0 : find_own(p, s, src, !p->hairpin);
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

	take_up(skb, p);
	if (reason)
		return reason;
	if (p->kind == KIND_ARP)
		return judge_arp(skb, p);
	if (!s)
		return REASON_HELPER_FAILED;
	if (p->kind == KIND_NEIGHBOUR)
		return judge_neighbour(skb, p, s);
	if (p->kind == KIND_ROUTER)
		return REASON_ROUTER_ADVERT_SPOOFED;
	reason = recall(skb, p);
	if (reason)
		return reason;
	src = sender(skb, p, s);
	if (!owns(skb, p, src))
		return REASON_SOURCE_SPOOFED;
	p->hold = s->hold_from_pod;
	reason = know_fragment(p);
	if (reason)
		return reason;
	reason = take_mask_off(skb, p, s);
	if (reason != REASON_NOT_OURS)
		return reason;
	return is_group(&p->tuple.dst) ? send_to_group(p, src) : leave_pod(skb, p, s, src);
}

/*
 * What waits comes back to the backend that it was given, the one that is asked about; what waited
 * in vain frees its client of it.
 */
static int leave_from_pod(struct __sk_buff *skb, struct packet *p, enum reason reason)
{
	int action = leave(skb, p, reason);

	if (reason < REASON_DROPS || !p->translated)
		return action;
	if (p->to_link)
		remember_choice(p);
	else if (p->was_held && (p->tuple.proto == IPPROTO_UDP || is_first_of_tcp(p)))
		translations.delete(&p->wire);
	return action;
}

int from_pod(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_FROM_POD);

	return p ? leave_from_pod(skb, p, handle_from_pod(skb, p)) : TC_ACT_SHOT;
}

/* Whether the node has a server at the source of p->tuple: no connection of it is from port 0. */
static bool is_from_server(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple ends = {};
	u32 bytes = sizeof(ends.ipv4);
	struct bpf_sock *server;
	bool listens;

	if (p->family == 4) {
		ends.ipv4.saddr = p->tuple.dst.word[3];
		ends.ipv4.daddr = p->tuple.src.word[3];
		ends.ipv4.dport = p->tuple.sport;
	} else {
		bytes = sizeof(ends.ipv6);
		__builtin_memcpy(ends.ipv6.saddr, &p->tuple.dst, sizeof(ends.ipv6.saddr));
		__builtin_memcpy(ends.ipv6.daddr, &p->tuple.src, sizeof(ends.ipv6.daddr));
		ends.ipv6.dport = p->tuple.sport;
	}
	server = bpf_sk_lookup_tcp(skb, &ends, bytes, BPF_F_CURRENT_NETNS, 0);
	if (!server)
		return false;
	listens = server->state == BPF_TCP_LISTEN;
	bpf_sk_release(server);
	return listens;
}

/* What the flow of an admitted packet wants changed before its pod gets it. */
static enum reason put_on(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			  const struct flow *flow)
{
	struct address mask;

	if (!flow || !(flow->flags & FLOW_TRANSLATED))
		return REASON_NONE;
	if (is_reply(p, flow))
		return restore_vip(skb, p, flow);
	if (flow->path != PATH_MASKED)
		return REASON_NONE;
	mask_address(s, p->family, &mask);
	return put_mask(skb, p, s, &mask);
}

/*
 * The stack's packet for a local pod, `dst`: judged here unless the sender's link did. Which
 * endpoint a pod's SCTP goes to only netfilter has chosen.
 */
static enum reason reach_pod(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			     const struct workload *dst)
{
	bool hairpin = take_hairpin_mark(skb, p), own_node = hairpin || is_own_node(skb, p);
	struct flow *flow = find_any(p, s, dst, false);
	const struct workload *src = 0;
	enum flow_path path = PATH_STACK;
	enum reason reason;

	if (flow && flow->path == PATH_NAT && is_reply(p, flow))
		return answer_by_stack(p, s, flow);
	if (!flow || is_sctp(p))
		src = workloads.lookup(&p->tuple.src);
	/* Pieces that no link brought (is_own_node) were proven where the flow that they go by was. */
	if (!own_node && (skb->ingress_ifindex || !flow || !is_by_stack(flow->path)) &&
	    is_forged(skb, p, s))
		return REASON_SOURCE_SPOOFED;
	/* What a server of the node's says unasked was asked for by the pod, and that is forgotten. */
	if (own_node && !flow && (p->tcp_flags & TCP_ACK))
		own_node = !is_from_server(skb, p);
	/* Its sender's link let it by as it was dialled, or this would be a flow. */
	if (hairpin || (is_sctp(p) && src && !own_node))
		path = PATH_NAT;
	reason = admit(p, s, flow, src, dst, path, own_node ? FLOW_OWN_NODE : 0);
	if (!reason)
		reason = put_on(skb, p, s, flow);
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
	if ((s->flags & SETTING_BRIDGE) && is_group(&p->tuple.dst))
		return hear_group(skb, p, s);
	dst = workloads.lookup(&p->tuple.dst);
	if ((s->flags & SETTING_BRIDGE) && is_flooded(p, dst))
		return REASON_FLOODED;
	if (!dst || dst->ifindex != skb->ifindex)
		return REASON_NO_WORKLOAD;
	reason = know_fragment(p);
	/* What its own node sends reaches a pod whatever it belongs to. */
	if (reason == REASON_FRAGMENT_UNKNOWN && is_own_node(skb, p))
		return REASON_STACK;
	return reason ? reason : reach_pod(skb, p, s, dst);
}

int to_pod(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_TO_POD);

	return p ? leave(skb, p, handle_to_pod(skb, p)) : TC_ACT_SHOT;
}

/* What a pod sent and its program held comes by the pod's link once more, to be proven again. */
static enum reason handle_held_from_pod(struct __sk_buff *skb, struct packet *p)
{
	enum reason reason = parse_held(skb, p);
	struct workload *src;

	if (reason)
		return reason;
	src = workloads.lookup(&p->tuple.src);
	return src ? once_more(skb, p, src->ifindex) : REASON_NO_WORKLOAD;
}

int held_from_pod(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_HELD);

	return p ? leave(skb, p, handle_held_from_pod(skb, p)) : TC_ACT_SHOT;
}
