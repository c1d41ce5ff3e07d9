/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ways on for a packet that was admitted: into a local pod, through the overlay, to a node on
 * the same link, to the stack.
 * The law of paths: a flow takes the stack both ways or neither; replies follow what the first
 * packet chose. A pod sees the hop limit its peer sent, as over a switch: nothing here routes.
 */
#ifndef WEFT_DELIVER_H
#define WEFT_DELIVER_H

#include "packet.h"

/* Every link carries this much (RFC 8200 5), so that only longer packets are measured. */
#define IPV6_MTU_MIN 1280
/* And every tunnel this much: that less the outer headers of IPv6. */
#define TUNNEL_MTU_MIN 1210
/* Before each segment's payload at most, where it may be of a tunnel of the pod's own. */
#define SEGMENT_HEADERS_MAX 128

/*
 * Whether the link carries it, what is to be segmented by its segments. If not, the stack must
 * answer with what the path carries.
 */
static bool fits(struct __sk_buff *skb, u32 ifindex)
{
	u32 mtu = 0;

	return skb->len <= ETH_HLEN + IPV6_MTU_MIN ||
	       !bpf_check_mtu(skb, ifindex, &mtu, 0, BPF_MTU_CHK_SEGS);
}

/* From the network header to the payload, in each segment to be cut from this packet. */
static u32 headers_bytes(struct __sk_buff *skb, const struct packet *p)
{
	u8 offset = 0;

	if (p->tuple.proto != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, p->l4 + TCP_DATA_OFFSET, &offset, sizeof(offset)))
		return SEGMENT_HEADERS_MAX;
	return p->l4 - p->l3 + (offset >> 4) * 4;
}

/*
 * Whether a tunnel carries it whose path is narrower than the link: bpf_check_mtu knows no limit
 * but the link's.
 */
static bool fits_tunnel(struct __sk_buff *skb, const struct packet *p, u32 mtu)
{
	if (!mtu || skb->len <= ETH_HLEN + mtu)
		return true;
	return skb->gso_size && skb->gso_size + headers_bytes(skb, p) <= mtu;
}

/* As if the frame were for this host, whatever MAC it was sent to. */
static long receive(struct __sk_buff *skb)
{
	return skb->pkt_type == PACKET_HOST ? 0 : bpf_skb_change_type(skb, PACKET_HOST);
}

/* A workload's row has both MACs side by side, in a frame's order. */
_Static_assert(__builtin_offsetof(struct workload, host_mac) ==
		       __builtin_offsetof(struct workload, mac) + ETH_ALEN,
	       "order of MACs");

/*
 * Makes the packet one that a pod may get by redirect_peer. The mark would survive into the pod; a
 * store of its own, as the verifier refuses a wider one.
 */
static long enter_pod(struct __sk_buff *skb, const struct macs *macs)
{
	struct macs *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end)
		return -1;
	*frame = *macs;
	*(volatile __u32 *)&skb->mark = 0;
	return receive(skb);
}

/* An answer's, to the frame that was parsed. */
static void swap_macs(const struct packet *p, struct macs *frame)
{
	frame->dst_high = (u32)p->macs.src_high | p->macs.src_low << 16;
	frame->dst_low = p->macs.src_low >> 16;
	frame->src_high = p->macs.dst_high;
	frame->src_low = p->macs.dst_high >> 16 | (u32)p->macs.dst_low << 16;
}

/* Into a pod past its link's egress program: whoever calls this has judged. */
static enum reason into_pod(struct __sk_buff *skb, struct packet *p, const struct workload *to)
{
	if (enter_pod(skb, (const struct macs *)to->mac))
		return REASON_HELPER_FAILED;
	p->target = to->ifindex;
	return REASON_DELIVERED;
}

/* Of the tunnel to where `to` is; 0: the overlay's link says it. No IPv6 packet is cut below. */
static u32 tunnel_mtu(const struct packet *p, const struct address *to)
{
	struct prefix *row = prefix_of(to);

	if (!row || !row->mtu)
		return 0;
	return p->family == 6 && row->mtu < IPV6_MTU_MIN ? IPV6_MTU_MIN : row->mtu;
}

/* Whether the tunnel carries it to where `to` is. */
static bool fits_overlay(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			 const struct address *to)
{
	p->mtu = TUNNEL_MTU_MIN;
	if (skb->len > ETH_HLEN + TUNNEL_MTU_MIN)
		p->mtu = tunnel_mtu(p, to);
	return s->overlay_ifindex && fits(skb, s->overlay_ifindex) && fits_tunnel(skb, p, p->mtu);
}

/* To the overlay link; its egress program sets the tunnel's far end. */
static enum reason enter_overlay(struct packet *p, const struct settings *s)
{
	p->target = s->overlay_ifindex;
	p->to_link = TO_LINK;
	return REASON_TUNNELLED;
}

static enum reason into_overlay(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	return fits_overlay(skb, p, s, &p->tuple.dst) ? enter_overlay(p, s) : REASON_STACK;
}

/* To a node on one of our links, which knows its pods' ways on; the kernel finds its MAC. */
static enum reason into_neighbour(struct __sk_buff *skb, struct packet *p,
				  const struct prefix *remote)
{
	if (!fits(skb, remote->ifindex))
		return REASON_STACK;
	p->next_hop.nh_family = is_mapped(&remote->node) ? AF_INET : AF_INET6;
	if (is_mapped(&remote->node))
		p->next_hop.ipv4_nh = remote->node.word[3];
	else
		__builtin_memcpy(p->next_hop.ipv6_nh, &remote->node, sizeof(remote->node));
	p->target = remote->ifindex;
	p->to_link = TO_NEIGHBOUR;
	return REASON_DIRECT;
}

static struct north_south *north_south_row(void)
{
	u32 zero = 0;

	return north_south.lookup(&zero);
}

/* To the stack, though its flow is of a client outside: to_uplink looks such up from then on. */
static enum reason by_stack(void)
{
	struct north_south *row = north_south_row();

	if (row && !row->by_stack)
		row->by_stack = 1;
	return REASON_STACK;
}

/* The answer to the node's own packet: received by the link that it was leaving by. */
static enum reason into_node(struct __sk_buff *skb, struct packet *p)
{
	struct macs *frame = (void *)(long)skb->data;

	if (p->l3) {
		if ((void *)(frame + 1) > (void *)(long)skb->data_end)
			return REASON_HELPER_FAILED;
		swap_macs(p, frame);
	}
	p->target = skb->ifindex;
	p->again = 1;
	return REASON_STACK;
}

/*
 * To the node's stack, past the bridge that the pod hangs on: its own ports would get the packet by
 * their MACs, with netfilter not asked, or asked for a port and not for where it leads.
 */
static enum reason into_netfilter(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	if (!(s->flags & SETTING_BRIDGE) || !s->bridge_ifindex)
		return REASON_STACK;
	if (bpf_skb_store_bytes(skb, 0, (void *)s->bridge_mac, sizeof(s->bridge_mac), 0))
		return REASON_HELPER_FAILED;
	p->target = s->bridge_ifindex;
	p->again = 1;
	return REASON_STACK;
}

/* Back out of the uplink that a client is behind; the kernel's route there says by which router. */
static enum reason into_uplink(struct packet *p, u32 ifindex)
{
	p->target = ifindex;
	p->to_link = TO_ROUTE;
	return REASON_ANSWERED;
}

#endif
