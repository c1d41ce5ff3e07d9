/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * "Nobody is there", said at once: the packet itself becomes a TCP RST or an ICMP port
 * unreachable, from the address it was for, and goes back into its pod, or out of the uplink that
 * brought it. What cannot be answered (fragments, headers with options, RST, ICMP errors) is dropped.
 */
#ifndef WEFT_REFUSE_H
#define WEFT_REFUSE_H

#include "deliver.h"
#include "parse.h"

#define REPLY_HOPS 64
#define QUOTED_TRANSPORT 8 /* RFC 792: of the datagram's data */

struct pseudo_tail {
	__be32 length;
	__be32 proto;
};

struct refusal4 {
	struct iphdr ip;
	struct icmp_head icmp;
	u8 quote[sizeof(struct iphdr) + QUOTED_TRANSPORT];
};

struct refusal6 {
	struct ipv6hdr ip;
	struct icmp_head icmp;
	u8 quote[sizeof(struct ipv6hdr) + QUOTED_TRANSPORT];
};

_Static_assert(sizeof(struct refusal6) <= sizeof(((struct packet *)0)->buffer), "fits");

static u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The pseudo header's sum; the same in both families but for the addresses' words that are 0. */
static u64 pseudo_sum(const struct packet *p, u8 proto, u32 length)
{
	u32 start = p->family == 4 ? 3 : 0, i;
	u64 sum = BE16(length) + BE16(proto);

	for (i = 0; i < 4; i++)
		if (i >= start)
			sum += (u64)p->tuple.src.word[i] + p->tuple.dst.word[i];
	return sum;
}

static void answer_ip4(struct packet *p, struct iphdr *ip, u8 proto, u16 payload)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->ttl = REPLY_HOPS;
	ip->protocol = proto;
	ip->tot_len = BE16(sizeof(*ip) + payload);
	ip->saddr = p->tuple.dst.word[3];
	ip->daddr = p->tuple.src.word[3];
	ip->check = ~fold(bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
}

static void answer_ip6(struct packet *p, struct ipv6hdr *ip, u8 proto, u16 payload)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->hop_limit = REPLY_HOPS;
	ip->nexthdr = proto;
	ip->payload_len = BE16(payload);
	__builtin_memcpy(&ip->saddr, &p->tuple.dst, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &p->tuple.src, sizeof(ip->daddr));
}

/* RFC 9293 3.10.7.1: in answer to a segment for no connection. */
static void answer_tcp(const struct packet *p, const struct tcphdr *got, struct tcphdr *rst)
{
	u32 payload = p->end - p->l4 - got->doff * 4;

	__builtin_memset(rst, 0, sizeof(*rst));
	rst->source = got->dest;
	rst->dest = got->source;
	rst->doff = sizeof(*rst) / 4;
	rst->rst = 1;
	if (got->ack) {
		rst->seq = got->ack_seq;
		return;
	}
	rst->ack = 1;
	rst->ack_seq = BE32(BE32(got->seq) + got->syn + got->fin + payload);
}

/*
 * Right for partial and for full checksums, and nothing tells which: the pseudo header's sum is
 * stored, as a partial one wants it; the replacement, which touches full ones only, then turns it
 * into ~(pseudo + header): ~(difference - stored) with difference = header + 2 * stored.
 */
static long store_rst(struct __sk_buff *skb, const struct packet *p, struct tcphdr *rst)
{
	u16 pseudo = fold(pseudo_sum(p, IPPROTO_TCP, sizeof(*rst)));
	u64 difference = (u64)(u32)bpf_csum_diff(0, 0, (__be32 *)rst, sizeof(*rst), 0) +
			 pseudo + pseudo;

	rst->check = pseudo;
	if (bpf_skb_store_bytes(skb, p->l4, rst, sizeof(*rst), 0))
		return -1;
	return bpf_l4_csum_replace(skb, p->l4 + 16, 0, fold(difference), 0);
}

static enum reason refuse_tcp(struct __sk_buff *skb, struct packet *p)
{
	struct tcphdr got, rst;
	void *ip = p->buffer;

	if (bpf_skb_load_bytes(skb, p->l4, &got, sizeof(got)) ||
	    bpf_skb_change_tail(skb, p->l4 + sizeof(rst), 0))
		return REASON_HELPER_FAILED;
	answer_tcp(p, &got, &rst);
	if (p->family == 4) {
		answer_ip4(p, ip, IPPROTO_TCP, sizeof(rst));
		if (bpf_skb_store_bytes(skb, ETH_HLEN, ip, sizeof(struct iphdr), 0))
			return REASON_HELPER_FAILED;
	} else {
		answer_ip6(p, ip, IPPROTO_TCP, sizeof(rst));
		if (bpf_skb_store_bytes(skb, ETH_HLEN, ip, sizeof(struct ipv6hdr), 0))
			return REASON_HELPER_FAILED;
	}
	return store_rst(skb, p, &rst) ? REASON_HELPER_FAILED : REASON_NONE;
}

/* Room for `bytes` of new headers before the packet, cut behind what is quoted. */
static long make_room(struct __sk_buff *skb, u32 quoted, u32 bytes)
{
	return bpf_skb_change_tail(skb, ETH_HLEN + quoted, 0) ||
	       bpf_skb_adjust_room(skb, bytes, BPF_ADJ_ROOM_MAC, 0);
}

static enum reason refuse_icmp4(struct __sk_buff *skb, struct packet *p)
{
	struct refusal4 *answer = (void *)p->buffer;
	u32 head = sizeof(answer->ip) + sizeof(answer->icmp);
	u32 covered = sizeof(answer->icmp) + sizeof(answer->quote);

	if (bpf_skb_load_bytes(skb, ETH_HLEN, answer->quote, sizeof(answer->quote)))
		return REASON_HELPER_FAILED;
	answer_ip4(p, &answer->ip, IPPROTO_ICMP, covered);
	__builtin_memset(&answer->icmp, 0, sizeof(answer->icmp));
	answer->icmp.type = ICMP4_UNREACHABLE;
	answer->icmp.code = ICMP4_PORT_UNREACHABLE;
	answer->icmp.checksum = ~fold(bpf_csum_diff(0, 0, (__be32 *)&answer->icmp, covered, 0));
	if (make_room(skb, sizeof(answer->quote), head) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, answer, head, 0))
		return REASON_HELPER_FAILED;
	return REASON_NONE;
}

static enum reason refuse_icmp6(struct __sk_buff *skb, struct packet *p)
{
	struct refusal6 *answer = (void *)p->buffer;
	u32 head = sizeof(answer->ip) + sizeof(answer->icmp);
	u32 covered = sizeof(answer->icmp) + sizeof(answer->quote);
	u64 sum = pseudo_sum(p, IPPROTO_ICMPV6, covered);

	if (bpf_skb_load_bytes(skb, ETH_HLEN, answer->quote, sizeof(answer->quote)))
		return REASON_HELPER_FAILED;
	answer_ip6(p, &answer->ip, IPPROTO_ICMPV6, covered);
	__builtin_memset(&answer->icmp, 0, sizeof(answer->icmp));
	answer->icmp.type = ICMP6_UNREACHABLE;
	answer->icmp.code = ICMP6_PORT_UNREACHABLE;
	sum += (u32)bpf_csum_diff(0, 0, (__be32 *)&answer->icmp, covered, 0);
	answer->icmp.checksum = ~fold(sum);
	if (make_room(skb, sizeof(answer->quote), head) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, answer, head, 0))
		return REASON_HELPER_FAILED;
	return REASON_NONE;
}

static bool is_answerable(const struct packet *p)
{
	u32 plain = ETH_HLEN + (p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));

	if (p->l4 != plain || p->fragment || p->end < p->l4 + QUOTED_TRANSPORT)
		return false;
	return !(p->tcp_flags & TCP_RST) && !is_icmp_error(p);
}

/* Makes the packet its own answer. */
static enum reason become_refusal(struct __sk_buff *skb, struct packet *p)
{
	if (p->tuple.proto == IPPROTO_TCP)
		return refuse_tcp(skb, p);
	return p->family == 4 ? refuse_icmp4(skb, p) : refuse_icmp6(skb, p);
}

/* Back to a pod. Always REASON_NO_BACKEND; with p->target set the packet is its own answer. */
static enum reason refuse(struct __sk_buff *skb, struct packet *p, const struct workload *src)
{
	if (!is_answerable(p))
		return REASON_NO_BACKEND;
	if (become_refusal(skb, p) || into_pod(skb, p, src) != REASON_DELIVERED)
		return REASON_HELPER_FAILED;
	return REASON_NO_BACKEND;
}

/* The same back out of the uplink that a client's packet came by. */
static enum reason refuse_outside(struct __sk_buff *skb, struct packet *p)
{
	if (!is_answerable(p))
		return REASON_NO_BACKEND;
	if (become_refusal(skb, p))
		return REASON_HELPER_FAILED;
	into_uplink(p, p->came_by);
	return REASON_NO_BACKEND;
}

#endif
