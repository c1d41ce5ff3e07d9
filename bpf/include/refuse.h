/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a sender is told at once: the packet itself becomes its answer, from the address it was for,
 * and goes back into its pod, or out of the uplink that brought it. "Nobody is there" is a TCP RST
 * or an ICMP port unreachable, "too long" an ICMP error with what fits. What cannot be answered
 * (headers with options, RST, ICMP errors, fragments but an IPv6 datagram's first) is dropped.
 */
#ifndef WEFT_REFUSE_H
#define WEFT_REFUSE_H

#include "deliver.h"
#include "parse.h"
#include "rewrite.h"

#define REPLY_HOPS 64
#define QUOTED_TRANSPORT 8 /* RFC 792: of the datagram's data */
/* TCP's header whole, or IPv6's fragment header and UDP's. */
#define QUOTED_MOST 20

struct pseudo_tail {
	__be32 length;
	__be32 proto;
};

struct error4 {
	struct iphdr ip;
	struct icmp_head icmp;
	u8 quote[sizeof(struct iphdr) + QUOTED_MOST];
};

struct error6 {
	struct ipv6hdr ip;
	struct icmp_head icmp;
	u8 quote[sizeof(struct ipv6hdr) + QUOTED_MOST];
};

_Static_assert(sizeof(struct error6) <= sizeof(((struct packet *)0)->buffer), "fits");

/* transport: how many bytes it quotes behind the network header; mtu: 0 where it names none. */
struct complaint {
	u8 type;
	u8 code;
	u16 mtu;
	u32 transport;
};

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

/*
 * The checksum that a quoted transport header has is anything: nobody verifies a cut packet's. If
 * the packet's was partial, who sends the answer puts there what makes the header's sum ~stored;
 * so that this changes nothing that the error's own checksum covers, the sum is that already.
 */
static void settle_checksum(const struct packet *p, u8 *transport, u32 bytes)
{
	u32 at = checksum_offset(p->tuple.proto);
	__sum16 *checksum = (void *)(transport + at);
	u32 rest;

	if (p->fragment || !at || at + sizeof(*checksum) > bytes)
		return;
	*checksum = 0;
	rest = (u16)~fold((u32)bpf_csum_diff(0, 0, (__be32 *)transport, bytes, 0));
	*checksum = (rest & 1 ? rest + 0xffff : rest) / 2;
}

static void fill_icmp(struct icmp_head *icmp, const struct complaint *why)
{
	__builtin_memset(icmp, 0, sizeof(*icmp));
	icmp->type = why->type;
	icmp->code = why->code;
	icmp->sequence = BE16(why->mtu);
}

static enum reason become_error4(struct __sk_buff *skb, struct packet *p,
				 const struct complaint *why)
{
	struct error4 *answer = (void *)p->buffer;
	u32 head = sizeof(answer->ip) + sizeof(answer->icmp);
	u32 quoted = sizeof(answer->ip) + why->transport, covered = sizeof(answer->icmp) + quoted;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, answer->quote, quoted))
		return REASON_HELPER_FAILED;
	settle_checksum(p, answer->quote + sizeof(answer->ip), why->transport);
	answer_ip4(p, &answer->ip, IPPROTO_ICMP, covered);
	fill_icmp(&answer->icmp, why);
	answer->icmp.checksum = ~fold((u32)bpf_csum_diff(0, 0, (__be32 *)&answer->icmp, covered, 0));
	if (make_room(skb, quoted, head) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, answer, head + quoted, 0))
		return REASON_HELPER_FAILED;
	return REASON_NONE;
}

static enum reason become_error6(struct __sk_buff *skb, struct packet *p,
				 const struct complaint *why)
{
	struct error6 *answer = (void *)p->buffer;
	u32 head = sizeof(answer->ip) + sizeof(answer->icmp);
	u32 quoted = sizeof(answer->ip) + why->transport, covered = sizeof(answer->icmp) + quoted;
	u64 sum = pseudo_sum(p, IPPROTO_ICMPV6, covered);

	if (bpf_skb_load_bytes(skb, ETH_HLEN, answer->quote, quoted))
		return REASON_HELPER_FAILED;
	settle_checksum(p, answer->quote + sizeof(answer->ip), why->transport);
	answer_ip6(p, &answer->ip, IPPROTO_ICMPV6, covered);
	fill_icmp(&answer->icmp, why);
	sum += (u32)bpf_csum_diff(0, 0, (__be32 *)&answer->icmp, covered, 0);
	answer->icmp.checksum = ~fold(sum);
	if (make_room(skb, quoted, head) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, answer, head + quoted, 0))
		return REASON_HELPER_FAILED;
	return REASON_NONE;
}

static enum reason refuse_icmp(struct __sk_buff *skb, struct packet *p)
{
	struct complaint why = {.transport = QUOTED_TRANSPORT};

	if (p->family == 4) {
		why.type = ICMP4_UNREACHABLE;
		why.code = ICMP4_PORT_UNREACHABLE;
		return become_error4(skb, p, &why);
	}
	why.type = ICMP6_UNREACHABLE;
	why.code = ICMP6_PORT_UNREACHABLE;
	return become_error6(skb, p, &why);
}

static enum reason become_too_big(struct __sk_buff *skb, struct packet *p, u32 mtu)
{
	struct complaint why = {.mtu = mtu, .transport = QUOTED_MOST};

	if (p->family == 4) {
		why.type = ICMP4_UNREACHABLE;
		why.code = ICMP4_FRAGMENTATION_NEEDED;
		return become_error4(skb, p, &why);
	}
	why.type = ICMP6_PACKET_TOO_BIG;
	return become_error6(skb, p, &why);
}

static u32 plain_headers(const struct packet *p)
{
	return ETH_HLEN + (p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
}

static bool is_answerable(const struct packet *p)
{
	if (p->l4 != plain_headers(p) || p->fragment || p->end < p->l4 + QUOTED_TRANSPORT)
		return false;
	return !(p->tcp_flags & TCP_RST) && !is_icmp_error(p);
}

/* Whose sender can be told that it is too long: the quote has its ports. */
static bool is_measurable(const struct packet *p)
{
	u32 headers = plain_headers(p);

	if (p->family == 6 && p->fragment == FRAGMENT_FIRST)
		headers += sizeof(struct extension);
	return p->l4 == headers && p->fragment != FRAGMENT_LATER && !is_icmp_error(p);
}

/* Makes the packet its own answer. */
static enum reason become_refusal(struct __sk_buff *skb, struct packet *p)
{
	if (p->tuple.proto == IPPROTO_TCP)
		return refuse_tcp(skb, p);
	return refuse_icmp(skb, p);
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

/* The same to the node itself, where its packet was about to leave. */
static enum reason refuse_here(struct __sk_buff *skb, struct packet *p)
{
	if (!is_answerable(p))
		return REASON_NO_BACKEND;
	if (become_refusal(skb, p) || into_node(skb, p) != REASON_STACK)
		return REASON_HELPER_FAILED;
	return REASON_NO_BACKEND;
}

#endif
