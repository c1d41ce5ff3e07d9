/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ways on for a packet that was admitted: into a local pod, through the overlay, to the stack.
 * The law of paths: a flow takes the stack both ways or neither; replies follow what the first
 * packet chose. A pod sees the hop limit its peer sent, as over a switch: nothing here routes.
 */
#ifndef WEFT_DELIVER_H
#define WEFT_DELIVER_H

#include "packet.h"

/* Every link carries this much (RFC 8200 5), so that only longer packets are measured. */
#define IPV6_MTU_MIN 1280

/* Too long for the link: the stack must answer with what the path carries. */
static bool fits(struct __sk_buff *skb, u32 ifindex)
{
	u32 mtu = 0;

	return skb->len <= ETH_HLEN + IPV6_MTU_MIN || !bpf_check_mtu(skb, ifindex, &mtu, 0, 0);
}

/* As if the frame were for this host, whatever MAC it was sent to. */
static long receive(struct __sk_buff *skb)
{
	return skb->pkt_type == PACKET_HOST ? 0 : bpf_skb_change_type(skb, PACKET_HOST);
}

static enum reason write_macs(struct __sk_buff *skb, const struct workload *to)
{
	struct macs *macs = (void *)(long)skb->data;

	if ((void *)(macs + 1) > (void *)(long)skb->data_end)
		return REASON_HELPER_FAILED;
	/* A workload's row has both MACs side by side, in a frame's order. */
	_Static_assert(__builtin_offsetof(struct workload, host_mac) ==
			       __builtin_offsetof(struct workload, mac) + ETH_ALEN, "order");
	*macs = *(const struct macs *)to->mac;
	return REASON_NONE;
}

/*
 * Into a pod by redirect_peer, past its link's egress program: whoever calls this has judged.
 * The mark would survive into the pod; a store of its own, as the verifier refuses a wider one.
 */
static enum reason into_pod(struct __sk_buff *skb, struct packet *p, const struct workload *to)
{
	if (write_macs(skb, to) || receive(skb))
		return REASON_HELPER_FAILED;
	*(volatile __u32 *)&skb->mark = 0;
	p->target = to->ifindex;
	return REASON_DELIVERED;
}

static enum reason deliver(struct __sk_buff *skb, struct packet *p, const struct workload *to)
{
	return fits(skb, to->ifindex) ? into_pod(skb, p, to) : REASON_STACK;
}

/* To the overlay link; its egress program sets the tunnel's far end. */
static enum reason into_overlay(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	if (!s->overlay_ifindex || !fits(skb, s->overlay_ifindex))
		return REASON_STACK;
	p->target = s->overlay_ifindex;
	p->to_link = 1;
	return REASON_TUNNELLED;
}

#endif
