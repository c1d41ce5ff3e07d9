/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who a pod says it is, below IP and in it: source address and MAC, ARP's sender, the target of a
 * neighbour advertisement. A pod may speak for its own addresses and nobody's router.
 */
#ifndef WEFT_NEIGHBOUR_H
#define WEFT_NEIGHBOUR_H

#include "parse.h"

#define ARP_SENDER_MAC 8
#define ARP_SENDER_IP 14

static bool owns(const struct __sk_buff *skb, const struct packet *p, const struct workload *w)
{
	return w && w->ifindex == skb->ifindex && is_from_mac(p, w->mac);
}

/* The pod at the other end of the packet's link; NULL: it has no address of this family. */
static struct workload *pod_of_link(const struct __sk_buff *skb, u8 family)
{
	u32 ifindex = skb->ifindex;
	struct pod_link *link = pod_links.lookup(&ifindex);
	struct workload *pod;

	if (!link)
		return 0;
	pod = workloads.lookup(family == 4 ? &link->addr4 : &link->addr6);
	return pod && pod->ifindex == ifindex ? pod : 0;
}

/* Whether nothing routes between a pod and `a`: neighbour discovery and MLD go no further. */
static bool is_on_link(const struct settings *s, const struct address *a)
{
	struct prefix *prefix;

	if (is_unset(a) || is_multicast(a) || is_link_local6(a) || is_own_gateway(s, a))
		return true;
	prefix = s->flags & SETTING_BRIDGE ? prefix_of(a) : 0;
	return prefix && (prefix->flags & PREFIX_LOCAL);
}

static enum reason judge_arp(struct __sk_buff *skb, struct packet *p)
{
	u16 mac[ETH_ALEN / 2];
	__be32 ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + ARP_SENDER_MAC, mac, sizeof(mac)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + ARP_SENDER_IP, &ip, sizeof(ip)))
		return REASON_MALFORMED;
	set_ipv4(&p->tuple.src, ip);
	if (!owns(skb, p, workloads.lookup(&p->tuple.src)) || !is_from_mac(p, mac))
		return REASON_NEIGHBOUR_SPOOFED;
	return REASON_STACK;
}

/* RFC 4861 4.4: what the sender says to have. */
static enum reason judge_advert(struct __sk_buff *skb, struct packet *p)
{
	struct address target;

	if (bpf_skb_load_bytes(skb, p->l4 + sizeof(struct icmp_head), &target, sizeof(target)))
		return REASON_MALFORMED;
	if (!is_link_local6(&target) && !owns(skb, p, workloads.lookup(&target)))
		return REASON_NEIGHBOUR_SPOOFED;
	return REASON_STACK;
}

static enum reason judge_neighbour(struct __sk_buff *skb, struct packet *p,
				   const struct settings *s)
{
	const struct address *src = &p->tuple.src;
	const struct workload *pod = pod_of_link(skb, 6);

	/* A pod without an IPv6 address has its kernel's link-local one. */
	if (!pod)
		pod = pod_of_link(skb, 4);
	/* RFC 4861 3.1: a hop limit of 255 proves a neighbour; no way between pods counts it down. */
	if (!is_on_link(s, &p->tuple.dst))
		return REASON_NEIGHBOUR_SPOOFED;
	if (!pod || !is_from_mac(p, pod->mac))
		return REASON_NEIGHBOUR_SPOOFED;
	/* Before it has an address a pod speaks from ::, and of its groups from fe80::. */
	if (!is_unset(src) && !is_link_local6(src) && !owns(skb, p, workloads.lookup(src)))
		return REASON_NEIGHBOUR_SPOOFED;
	if (p->icmp_type == ICMP6_NEIGHBOUR_ADVERT)
		return judge_advert(skb, p);
	return REASON_STACK;
}

#endif
