/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Clients from outside, who reach a Service at an address that leads to this node. Their packets
 * get a backend where they come in and keep their own address: into a pod here, or through the
 * overlay to a pod there, also of a node whose pods are reached without it: only so does the answer
 * come back here, to leave by the uplink that brought the client, from what it dialled. Where there
 * is no such way (another node's own address, no overlay), or the backend is this node's own, the
 * stack carries the flow both ways, and to_uplink does what is left to do.
 */
#ifndef WEFT_NORTH_H
#define WEFT_NORTH_H

#include "deliver.h"
#include "echo.h"
#include "fragment.h"
#include "mask.h"
#include "narrow.h"
#include "policy.h"
#include "refuse.h"
#include "sctp.h"
#include "translate.h"

/* Whose address is it that nobody can answer to (RFC 1122 3.2.1.3, RFC 4291 2.7)? */
static bool is_no_client(const struct address *a)
{
	if (is_mapped(a))
		return !(a->word[3] & BE32(0xff000000)) || is_multicast(a) ||
		       (a->word[3] & BE32(0xff000000)) == BE32(0x7f000000) ||
		       a->word[3] == BE32(0xffffffff);
	return is_multicast(a) || !(a->word[0] | a->word[1] | a->word[2]);
}

/* Whether who says to be a client is a pod or this node, as far as `from` can tell. */
static bool is_false_client(struct packet *p, const struct settings *s, u32 from)
{
	struct uplink *uplink = uplinks.lookup(&from);
	const struct address *src = &p->tuple.src;

	if (is_no_client(src) || is_own_gateway(s, src) || same_address(src, &s->node4) ||
	    same_address(src, &s->node6))
		return true;
	if (uplink && (same_address(src, &uplink->addr4) || same_address(src, &uplink->addr6)))
		return true;
	return is_forged_by(from, p, s, workloads.lookup(&p->tuple.src));
}

/* p->out: what the wire carries of p->tuple's flow, whose destination is the backend from now on. */
static enum reason aim(struct packet *p, const struct address *addr, __be16 port,
		       __be16 client_port)
{
	if (p->kind == KIND_PLAIN) {
		if (p->fragment == FRAGMENT_FIRST && know_fragment(p))
			return REASON_TABLE_FULL;
		p->wire = p->tuple;
	}
	p->out = p->tuple;
	dial_backend(p, addr, port, client_port);
	return REASON_NONE;
}

/* For an address that a Service has, but at nothing that it serves. */
static enum reason judge_unserved(struct packet *p, u32 from)
{
	struct uplink *uplink;
	struct frontend *whole;
	struct prefix *prefix;
	enum reason reason;

	if (p->tuple.proto == IPPROTO_TCP && !is_first_of_tcp(p))
		return REASON_NOT_OURS;
	uplink = uplinks.lookup(&from);
	if (uplink && (same_address(&p->tuple.dst, &uplink->addr4) ||
		       same_address(&p->tuple.dst, &uplink->addr6)))
		return REASON_NOT_OURS;
	whole = frontend_at(&p->tuple.dst, 0, 0);
	if (whole) {
		reason = judge_whole(p, whole);
		return reason ? reason : REASON_NOT_OURS;
	}
	prefix = prefix_of(&p->tuple.dst);
	return prefix && (prefix->flags & PREFIX_SERVICE) ? REASON_NO_SERVICE : REASON_NOT_OURS;
}

static enum reason choose_new(struct packet *p, const struct settings *s,
			      const struct frontend *frontend)
{
	bool local = frontend->flags & (FRONTEND_LOCAL_INSIDE | FRONTEND_LOCAL_OUTSIDE);
	const struct address *addr = 0;
	__be16 port = 0;
	enum reason reason;

	/* In the middle of a connection that another node took in, the ring finds its backend. */
	if (p->tuple.proto == IPPROTO_TCP && !is_first_of_tcp(p) && (local || !frontend->ring_size))
		return REASON_NO_BACKEND;
	if ((frontend->flags & FRONTEND_RANGES) && !is_in_ranges(frontend, &p->tuple.src))
		return REASON_SOURCE_RANGE;
	reason = choose_backend(p, s, frontend, local, true, &addr, &port);
	if (!reason)
		reason = aim(p, addr, port, 0);
	if (reason || (p->tuple.proto == IPPROTO_TCP && !is_first_of_tcp(p)))
		return reason;
	return set_apart(p, s);
}

/* The backend of a client's packet. Of the node's own traffic one look-up is asked. */
static enum reason find_backend(struct __sk_buff *skb, struct packet *p, const struct settings *s,
				const struct north_south *row, u32 from)
{
	struct translation *known = 0;
	struct frontend *frontend;

	if (p->fragment == FRAGMENT_LATER && know_fragment(p))
		return REASON_NOT_OURS;
	if (!has_ports(p)) {
		frontend = is_sctp(p) ? frontend_at(&p->tuple.dst, p->tuple.dport, IPPROTO_SCTP) : 0;
		return frontend ? come_by_stack(skb, p, frontend) : judge_unserved(p, from);
	}
	if (row->translated)
		known = known_choice(p, s);
	if (known)
		return aim(p, &known->addr, known->port, known->client_port);
	frontend = frontend_at(&p->tuple.dst, p->tuple.dport, p->tuple.proto);
	if (!frontend)
		return judge_unserved(p, from);
	return frontend->flags & FRONTEND_LOOPBACK ? REASON_NOT_OURS
						       : choose_new(p, s, frontend);
}

/* The backend whose answer an ICMP error is about; what the client got came from the VIP. */
static enum reason find_embedded_backend(struct packet *p, const struct north_south *row)
{
	struct translation *known;

	if (!row->translated)
		return REASON_NOT_OURS;
	p->wire = p->tuple;
	reverse_tuple(&p->embedded, &p->tuple);
	known = translations.lookup(&p->tuple);
	return known ? aim(p, &known->addr, known->port, known->client_port) : REASON_NOT_OURS;
}

/* PATH_UPLINK where the answer can be sent out from here, as its backend gives it. */
static enum flow_path way_in(const struct packet *p, const struct settings *s,
			     const struct workload *dst, const struct prefix *to)
{
	const struct prefix *from;

	if (dst)
		return dst->flags & WORKLOAD_NO_REDIRECT ? PATH_STACK : PATH_UPLINK;
	if (!to || !(to->flags & PREFIX_REMOTE) || !(s->flags & SETTING_OVERLAY))
		return PATH_STACK;
	from = prefix_of(&p->tuple.src);
	/* The far end believes no node's address from another node. */
	return from && (from->flags & (PREFIX_NODE | PREFIX_REMOTE)) ? PATH_STACK : PATH_UPLINK;
}

/*
 * The client's flow to its backend, as it comes now; NULL: none that this packet goes on with. What
 * takes the stack goes on so: its backend may know the client by another address.
 */
static struct flow *find_client_flow(struct packet *p, const struct settings *s,
				     const struct workload *dst, enum flow_path path)
{
	struct flow *flow;

	/* A new choice starts a new flow, but in the middle of a connection it is the same. */
	if (p->backend && (p->tuple.proto != IPPROTO_TCP || is_first_of_tcp(p)))
		return 0;
	flow = find_flow(p, s);
	if (!flow || (dst && !is_held_by(p, flow, dst, false)) || is_dialled_anew(p, flow))
		return 0;
	if (flow->path != path && path != PATH_MASKED && !is_by_stack(flow->path))
		flow->path = path;
	if (flow->ifindex != p->came_by)
		flow->ifindex = p->came_by;
	return flow;
}

/* How an admitted packet goes on; REASON_TOO_BIG: not, and that is said of it as it came. */
static enum reason send_in(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			   const struct workload *dst, const struct prefix *to,
			   enum flow_path path)
{
	if (path != PATH_UPLINK)
		return REASON_STACK;
	if (dst)
		return fits(skb, dst->ifindex) ? REASON_DELIVERED : REASON_STACK;
	return to ? into_tunnel(skb, p, s, &p->tuple.dst, !(to->flags & PREFIX_DIRECT))
		  : REASON_STACK;
}

static enum reason bring_on(struct __sk_buff *skb, struct packet *p, struct north_south *row,
			    const struct workload *dst, enum reason way)
{
	enum reason reason = remember_choice(p);

	if (!row->translated)
		row->translated = 1;
	if (way == REASON_STACK)
		by_stack();
	if (!reason)
		reason = rewrite(skb, p, &p->out, &p->tuple);
	if (reason)
		return reason;
	return way == REASON_DELIVERED && dst ? into_pod(skb, p, dst) : way;
}

static enum reason bring_in(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			    struct north_south *row)
{
	struct workload *dst = workloads.lookup(&p->tuple.dst);
	struct prefix *to = dst ? 0 : prefix_of(&p->tuple.dst);
	enum flow_path path = starts_masked(p, s, false) ? PATH_MASKED : way_in(p, s, dst, to);
	struct flow *flow;
	enum reason reason;

	if (to && (to->flags & PREFIX_LOCAL) && !is_own_gateway(s, &p->tuple.dst))
		return REASON_NO_WORKLOAD;
	flow = find_client_flow(p, s, dst, path);
	if (flow)
		path = flow->path;
	reason = admit(p, s, flow, 0, dst, path, 0);
	if (reason)
		return reason;
	reason = send_in(skb, p, s, dst, to, path);
	if (reason == REASON_TOO_BIG)
		return tell_client(skb, p);
	return reason >= REASON_DROPS ? reason : bring_on(skb, p, row, dst, reason);
}

/* What an uplink brought for no pod's address: to a backend where it is for a Service. */
static enum reason come_in(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	struct north_south *row = north_south_row();
	enum reason reason;

	if (!row || skb->pkt_type != PACKET_HOST ||
	    (p->tuple.proto == IPPROTO_UDP && p->tuple.dport == s->overlay_port))
		return REASON_NOT_OURS;
	if (p->kind != KIND_PLAIN && p->kind != KIND_ICMP_ERROR)
		return REASON_NOT_OURS;
	p->came_by = skb->ifindex;
	reason = p->kind == KIND_ICMP_ERROR ? find_embedded_backend(p, row)
					    : find_backend(skb, p, s, row, p->came_by);
	if (reason == REASON_NOT_OURS)
		return reason;
	if (is_false_client(p, s, p->came_by))
		return REASON_SOURCE_SPOOFED;
	if (reason == REASON_ANSWERED)
		return answer_echo_outside(skb, p);
	if (reason)
		return reason == REASON_NO_BACKEND ? refuse_outside(skb, p) : reason;
	return bring_in(skb, p, s, row);
}

/* A translated flow of which the stack carries the packet, or what it is an error about. */
static struct flow *find_carried(struct packet *p, const struct settings *s)
{
	struct north_south *row = north_south_row();
	struct flow *flow;

	if (!row || !row->by_stack || (p->fragment && know_fragment(p)))
		return 0;
	p->wire = p->tuple;
	if (p->kind == KIND_ICMP_ERROR)
		reverse_tuple(&p->embedded, &p->tuple);
	flow = find_flow(p, s);
	if (flow && (flow->flags & FLOW_TRANSLATED))
		return flow;
	p->tuple = p->wire;
	return 0;
}

/* The flow of an answer, or of what it is an error about. */
static struct flow *find_answered(struct packet *p, const struct settings *s)
{
	if (p->fragment && know_fragment(p))
		return 0;
	if (p->kind == KIND_ICMP_ERROR) {
		p->wire = p->tuple;
		reverse_tuple(&p->embedded, &p->tuple);
	}
	return find_flow(p, s);
}

static enum reason answer_outside(struct __sk_buff *skb, struct packet *p,
				  const struct settings *s, struct flow *flow)
{
	refresh_flow(p, s, flow);
	return restore_vip(skb, p, flow) ? REASON_HELPER_FAILED : REASON_ANSWERED;
}

/*
 * What another node's pod answered through the overlay, out by the uplink of its client; or by the
 * stack, which sent the client's packets on to that pod's own address.
 */
static enum reason answer_client(struct __sk_buff *skb, struct packet *p,
				 const struct settings *s)
{
	struct flow *flow = find_answered(p, s);
	enum reason reason;

	if (flow && flow->path == PATH_STACK && !(flow->flags & FLOW_TRANSLATED) &&
	    is_reply(p, flow)) {
		refresh_flow(p, s, flow);
		return REASON_STACK;
	}
	if (!flow || flow->path != PATH_UPLINK || !is_reply(p, flow))
		return p->fragment == FRAGMENT_LATER ? REASON_FRAGMENT_UNKNOWN : REASON_NO_WORKLOAD;
	/* The stack's error must name the pod; to_uplink puts the VIP into what the stack cuts. */
	if (!fits(skb, flow->ifindex))
		return by_stack();
	reason = answer_outside(skb, p, s, flow);
	return reason == REASON_ANSWERED ? into_uplink(p, flow->ifindex) : reason;
}

#endif
