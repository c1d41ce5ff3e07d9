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
#include "policy.h"
#include "service.h"
#include "rewrite.h"
#include "translate.h"
#include "deliver.h"
#include "reach.h"
#include "leave.h"

#define TUNNEL_HOPS 64

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

/* Back from the hold link it has no tunnel's key any more: it was proven before it went there. */
static bool is_proven(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	struct address node = {};

	if (tunnel_source(skb, s, &node))
		return owns_source(p, &node);
	return p->was_held && is_unset(&node);
}

static enum reason handle_from_overlay(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	enum reason reason = parse(skb, p);
	struct workload *dst;

	take_up(skb, p);
	if (reason)
		return reason;
	if (!s || p->kind == KIND_ARP || !is_proven(skb, p, s))
		return REASON_OVERLAY_SOURCE;
	/* The sender knew no MAC of ours: the frame counts as another host's until said otherwise. */
	if (receive(skb))
		return REASON_HELPER_FAILED;
	if (is_own_gateway(s, &p->tuple.dst))
		return REASON_STACK;
	dst = workloads.lookup(&p->tuple.dst);
	if (!dst)
		return REASON_NO_WORKLOAD;
	p->hold = s->hold_to_pod;
	return reach_pod(skb, p, s, dst, PATH_OVERLAY);
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

static enum reason handle_to_overlay(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = settings_row();
	enum reason reason = parse(skb, p);
	struct prefix *prefix;

	if (reason)
		return reason;
	if (!s || p->kind == KIND_ARP)
		return REASON_PROTOCOL_UNKNOWN;
	/* Group reports and solicitations of the kernel's own: without a key the device ends them. */
	if (is_multicast(&p->tuple.dst))
		return REASON_NOT_OURS;
	/* The far end believes that this node knows whose packets it wraps. */
	if (skb->ingress_ifindex && is_forged(skb, p, s))
		return REASON_SOURCE_SPOOFED;
	prefix = prefix_of(&p->tuple.dst);
	if (!prefix || !(prefix->flags & PREFIX_REMOTE))
		return REASON_NO_WORKLOAD;
	return set_tunnel(skb, s, &prefix->node) ? REASON_HELPER_FAILED : REASON_TUNNELLED;
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
