/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One packet as a program knows it, and the small things done with tuples.
 * It lives in per-CPU scratch: the stack has 512 bytes, and one CPU runs one program on links at
 * a time (softirqs are off around tc). Socket programs can be interrupted and never use it.
 */
#ifndef WEFT_PACKET_H
#define WEFT_PACKET_H

#include "address.h"
#include "maps.h"

enum packet_kind {
	KIND_PLAIN = 0,
	KIND_ARP,
	KIND_NEIGHBOUR,	 /* neighbour and router solicitation, MLD */
	KIND_ROUTER,	 /* what only routers send */
	KIND_ICMP_ERROR, /* embeds another packet's head: `embedded` */
};

enum fragment_part {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST,
	FRAGMENT_LATER, /* carries no ports */
};

struct packet {
	struct tuple tuple;    /* the flow's: a translated packet's after, a reply's as it came */
	struct tuple wire;     /* as it came, where translation changed `tuple` */
	struct tuple key;      /* `tuple`, its ends sorted */
	struct tuple out;      /* what the wire is to carry, where a VIP is put back */
	struct tuple embedded; /* ICMP errors: the packet they are about */
	struct address vip;
	u64 backend; /* chosen for a new translation; 0: none was made */
	u64 judged_set;
	u64 judged_revision;
	u64 judged_peer;
	u32 now;    /* jiffies */
	u32 target; /* ifindex to be redirected to; 0: none */
	__be32 fragment_id;
	u16 l4;		 /* offset of the transport header */
	u16 end;	 /* of the network layer's payload */
	u16 embedded_l4; /* offsets in an ICMP error */
	__be16 vip_port;
	u8 eth_src[6];
	u8 eth_dst[6];
	u8 judged_port_class;
	u8 family; /* 4, 6; 0: not IP */
	u8 kind;
	u8 fragment;
	u8 tcp_flags;
	u8 icmp_type;
	u8 swapped; /* in `key` the packet's source stands second */
	u8 direction;
	u8 translated; /* `tuple` is no longer what the wire carries */
	u8 hairpin;	/* client and backend are one pod */
	u8 is_new;	/* starts a flow */
	u8 to_link;	/* `target` is the link to leave by; else the host end of a pod's link */
	u8 pad[4];
	u64 buffer[16]; /* headers under construction */
};

/* The programs' own: nothing outside them reads it, so it is no table of maps.h. */
BPF_TABLE("percpu_array", u32, struct packet, scratch, 1);

static struct packet *packet_begin(enum direction direction)
{
	u32 zero = 0;
	struct packet *p = scratch.lookup(&zero);

	if (!p)
		return 0;
	__builtin_memset(p, 0, __builtin_offsetof(struct packet, key));
	__builtin_memset(&p->vip, 0, __builtin_offsetof(struct packet, buffer) -
					     __builtin_offsetof(struct packet, vip));
	p->now = bpf_jiffies64();
	p->direction = direction;
	return p;
}

static bool same_mac(const u8 *a, const u8 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) |
		 (a[5] ^ b[5]));
}

static void reverse_tuple(const struct tuple *from, struct tuple *to)
{
	to->src = from->dst;
	to->dst = from->src;
	to->sport = from->dport;
	to->dport = from->sport;
	to->proto = from->proto;
	__builtin_memset(to->pad, 0, sizeof(to->pad));
}

static bool is_first_of_tcp(const struct packet *p)
{
	return p->tuple.proto == IPPROTO_TCP &&
	       (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

#endif
