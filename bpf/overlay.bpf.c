/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The overlay's link, one flow-based VXLAN device. to_overlay tells it the far end for every
 * packet, whether the stack routed it here or a pod's program sent it; from_overlay believes a
 * packet only if the node that wraps it owns its source.
 */
#include "kernel.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "fragment.h"
#include "flow.h"
#include "hold.h"
#include "policy.h"
#include "service.h"
#include "rewrite.h"
#include "translate.h"
#include "deliver.h"
#include "reach.h"
#include "masquerade.h"
#include "north.h"
#include "leave.h"

#define TUNNEL_HOPS 64
#define PREFIX_OF_CLUSTER (PREFIX_REMOTE | PREFIX_LOCAL | PREFIX_SERVICE | PREFIX_NODE)

/* The node that sent the packet through the tunnel; false: not on our network. */
static bool tunnel_source(struct __sk_buff *skb, const struct settings *s, struct address *node)
{
	struct bpf_tunnel_key key = {};

	if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0)) {
		set_ipv4(node, bpf_htonl(key.remote_ipv4));
		return key.tunnel_id == s->overlay_vni;
	}
	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6))
		return false;
	__builtin_memcpy(node, key.remote_ipv6, sizeof(*node));
	return key.tunnel_id == s->overlay_vni;
}

/* The row of a peer that is reached without a tunnel names the node too: it may not know yet. */
static bool owns_source(struct packet *p, const struct address *node)
{
	struct prefix *prefix = prefix_of(&p->tuple.src);

	return prefix && (prefix->flags & PREFIX_REMOTE) && same_address(&prefix->node, node);
}

/* Whether a node brings a client's packet from outside: of nobody whom the cluster knows. */
static bool is_brought(struct packet *p, const struct address *node)
{
	struct prefix *bringer = prefix_of(node), *source;

	if (!bringer || !(bringer->flags & PREFIX_NODE) || is_no_client(&p->tuple.src))
		return false;
	source = prefix_of(&p->tuple.src);
	return !source || !(source->flags & PREFIX_OF_CLUSTER);
}

/* Back from the hold link a packet has no tunnel's key any more: it was proven before. */
static enum flow_path prove_again(struct packet *p)
{
	struct held *held = held_as(p);

	if (!held || is_unset(&held->entry))
		return PATH_OVERLAY;
	p->vip = held->entry;
	return PATH_ENTRY;
}

/* The way that a believed packet came; PATH_NONE: it is not. */
static enum flow_path prove(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	struct address node = {};

	if (!tunnel_source(skb, s, &node))
		return p->was_held && is_unset(&node) ? prove_again(p) : PATH_NONE;
	if (owns_source(p, &node))
		return PATH_OVERLAY;
	if (!is_brought(p, &node))
		return PATH_NONE;
	p->vip = node;
	return PATH_ENTRY;
}

/* For the node's address in its podCIDR: the node, or a client that was masqueraded with it. */
static enum reason reach_node(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	struct north_south *row = north_south_row();
	enum reason reason;

	if (!row || !row->by_stack)
		return REASON_STACK;
	if (p->fragment == FRAGMENT_LATER && know_fragment(p)) {
		hold_copy(skb, p, s);
		return REASON_STACK;
	}
	reason = p->kind == KIND_ICMP_ERROR ? restore_error(skb, p) : restore(skb, p, s);
	return reason == REASON_NOT_OURS || reason == REASON_RESTORED ? REASON_STACK : reason;
}

static enum reason handle_from_overlay(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	enum reason reason = parse(skb, p);
	enum flow_path came = PATH_NONE;
	struct workload *dst;

	take_up(skb, p);
	if (reason)
		return reason;
	if (s && p->kind != KIND_ARP)
		came = prove(skb, p, s);
	if (!s || came == PATH_NONE)
		return REASON_OVERLAY_SOURCE;
	/* The sender knew no MAC of ours: the frame counts as another host's until said otherwise. */
	if (receive(skb))
		return REASON_HELPER_FAILED;
	if (is_own_gateway(s, &p->tuple.dst))
		return reach_node(skb, p, s);
	dst = workloads.lookup(&p->tuple.dst);
	p->hold = s->hold_to_pod;
	if (!dst)
		return came == PATH_ENTRY ? REASON_NO_WORKLOAD : answer_client(skb, p, s);
	return reach_pod(skb, p, s, dst, came);
}

static long set_tunnel(struct __sk_buff *skb, const struct settings *s, const struct address *node)
{
	struct bpf_tunnel_key key = {};

	key.tunnel_id = s->overlay_vni;
	key.tunnel_ttl = TUNNEL_HOPS;
	if (is_mapped(node)) {
		key.remote_ipv4 = bpf_ntohl(node->word[3]);
		return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX);
	}
	__builtin_memcpy(key.remote_ipv6, node, sizeof(*node));
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6);
}

/* To where no node's pods are: a pod's answer to a client goes back to the node that brought it. */
static enum reason return_to_entry(struct __sk_buff *skb, struct packet *p,
				   const struct settings *s)
{
	struct flow *flow = find_answered(p, s);

	if (!flow || flow->path != PATH_ENTRY || !is_reply(p, flow))
		return REASON_NO_WORKLOAD;
	return set_tunnel(skb, s, &flow->vip) ? REASON_HELPER_FAILED : REASON_TUNNELLED;
}

/* Of a client outside: what the other node's pod answers it comes back by this node. */
static enum reason remember_client(struct packet *p)
{
	struct prefix *from = prefix_of(&p->tuple.src);

	if (from && (from->flags & PREFIX_OF_CLUSTER))
		return REASON_NONE;
	return create_flow(p, 0, 0, PATH_STACK, 0, false);
}

/*
 * What the stack hands on to another node's pod. A node that is a client of a Service is to be
 * masked: the pod would answer it past this node. So are others whose flow says so.
 */
static enum reason carry_client(struct packet *p, const struct settings *s,
				const struct workload *src, bool *masked)
{
	struct flow *flow;

	if ((p->kind != KIND_PLAIN && p->kind != KIND_ICMP_ERROR) ||
	    (p->fragment && know_fragment(p)))
		return REASON_NONE;
	flow = find_answered(p, s);
	if (!flow)
		return src || p->kind != KIND_PLAIN ? REASON_NONE : remember_client(p);
	if (!(flow->flags & FLOW_TRANSLATED))
		refresh_flow(p, s, flow);
	if (!(flow->flags & FLOW_TRANSLATED) || !is_by_stack(flow->path) || is_reply(p, flow))
		return REASON_NONE;
	*masked = true;
	return REASON_NONE;
}

/* Whether what this link brought may be a client. A pod is one to be masked only where the setting
 * says so: what most of them send is asked no more than that. */
static bool may_be_client(const struct settings *s, u32 from, const struct workload *src)
{
	return from && (!src || (s->flags & SETTING_MASQUERADE_CLIENTS));
}

/*
 * SCTP that netfilter aimed at another node's pod. A node, this one too, is a client under the
 * gateway address, as above.
 */
static enum reason wrap_sctp(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			     const struct workload *pod, bool *masked)
{
	struct prefix *client = pod ? 0 : prefix_of(&p->tuple.src);
	bool node = client && (client->flags & PREFIX_NODE);
	enum reason reason = know_fragment(p);

	if (reason)
		return reason;
	if (pod)
		return judge_carried(p, s, pod);
	if (is_own_gateway(s, &p->tuple.src))
		return REASON_NONE;
	if (!node && skb->ingress_ifindex)
		return carry_client(p, s, pod, masked);
	by_stack();
	p->wire = p->tuple;
	*masked = true;
	return REASON_NONE;
}

/* Whether a packet for another node's pods goes, and under whose address. */
static enum reason wrap(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			const struct workload *src, u32 from)
{
	enum reason reason = REASON_NONE;
	bool masked = false;

	if (is_sctp(p))
		reason = wrap_sctp(skb, p, s, src, &masked);
	else if (may_be_client(s, from, src))
		reason = carry_client(p, s, src, &masked);
	if (reason || !masked)
		return reason;
	/* In one place: what masquerading may come to is most of what the verifier follows here. */
	return put_mask(skb, p, s, p->family == 4 ? &s->gateway4 : &s->gateway6);
}

static enum reason handle_to_overlay(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	enum reason reason = parse(skb, p);
	struct workload *src;
	struct prefix *prefix;
	struct address node;
	u32 from;

	if (reason)
		return reason;
	if (!s || p->kind == KIND_ARP)
		return REASON_PROTOCOL_UNKNOWN;
	/* Group reports and solicitations of the kernel's own: without a key the device ends them. */
	if (is_multicast(&p->tuple.dst))
		return REASON_NOT_OURS;
	/* The far end believes that this node knows whose packets it wraps. */
	from = skb->ingress_ifindex;
	src = from ? workloads.lookup(&p->tuple.src) : 0;
	if (from && is_forged_by(from, p, s, src))
		return REASON_SOURCE_SPOOFED;
	prefix = prefix_of(&p->tuple.dst);
	if (!prefix || !(prefix->flags & PREFIX_REMOTE))
		return return_to_entry(skb, p, s);
	node = prefix->node;
	reason = wrap(skb, p, s, src, from);
	if (reason)
		return reason;
	return set_tunnel(skb, s, &node) ? REASON_HELPER_FAILED : REASON_TUNNELLED;
}

int from_overlay(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_FROM_OVERLAY);

	return p ? leave(skb, p, handle_from_overlay(skb, p)) : TC_ACT_SHOT;
}

int to_overlay(struct __sk_buff *skb)
{
	struct packet *p = packet_begin(DIRECTION_TO_OVERLAY);

	return p ? leave(skb, p, handle_to_overlay(skb, p)) : TC_ACT_SHOT;
}
