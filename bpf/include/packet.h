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

/* A pod's link is entered by its host end, another left by; a neighbour's MAC is the kernel's. */
enum to_link {
	TO_POD = 0,
	TO_LINK = 1,
	TO_NEIGHBOUR = 2,
	TO_ROUTE = 3, /* the next hop on that link is the route's */
};

/* Both addresses of a frame in three words: compared and copied on every packet. */
struct macs {
	u32 dst_high;
	u16 dst_low;
	u16 src_high;
	u32 src_low;
};

struct packet {
	struct tuple tuple;    /* the flow's: a translated packet's after, a reply's as it came */
	struct tuple wire;     /* as it came, where translation changed `tuple` */
	struct tuple key;      /* another tuple to look up: `tuple` sorted, its answer */
	struct tuple out;      /* what the wire is to carry, where a VIP is put back */
	struct tuple embedded; /* ICMP errors: the packet they are about */
	struct bpf_redir_neigh next_hop; /* where to_link is TO_NEIGHBOUR */
	u32 pad0;
	struct address vip; /* of PATH_ENTRY: the entry node's tunnel end */
	u64 backend; /* chosen for a new translation; 0: none was made */
	u64 affinity; /* the service that is to remember it for the client; 0: none */
	u64 judged_set;
	u64 judged_revision;
	u64 judged_peer;
	u32 now;    /* jiffies */
	u32 target; /* ifindex to be redirected to; 0: none */
	u32 mtu;    /* of the tunnel it goes by; 0: its link's */
	u32 came_by; /* the uplink that brought a client's packet; 0: no uplink did */
	u32 hold;   /* the end of the hold link for what is not known yet; 0: it may not wait */
	__be32 fragment_id;
	u16 l3;		 /* offset of the network header */
	u16 l4;		 /* of the transport header */
	u16 end;	 /* of the network layer's payload */
	u16 embedded_l4; /* offsets in an ICMP error */
	__be16 vip_port;
	__be16 client_port; /* as the wire has it, where `tuple` has another; 0: the same */
	struct macs macs;
	u8 judged_port_class;
	u8 family; /* 4, 6; 0: not IP */
	u8 kind;
	u8 fragment;
	u8 tcp_flags;
	u8 icmp_type;
	u8 swapped; /* in the flow's key the packet's source stands second */
	u8 direction;
	u8 translated; /* `tuple` is no longer what the wire carries */
	u8 hairpin;	/* client and backend are one pod */
	u8 is_new;	/* starts a flow */
	u8 to_link;	/* enum to_link: what `target` is */
	u8 was_held;	/* comes once more, out of the hold link */
	u8 is_copy;	/* what ends here nobody misses: the packet went on, or is the kernel's */
	u8 again;	/* `target` is the link that gets it once more */
	u8 may_cut;	/* IPv4 that routers may fragment */
	u8 fragment_proto; /* in a fragment's key; IPv6: 0 */
	u8 pad[3];
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
	__builtin_memset(&p->tuple, 0, sizeof(p->tuple));
	__builtin_memset(&p->vip, 0, __builtin_offsetof(struct packet, buffer) -
					     __builtin_offsetof(struct packet, vip));
	p->now = bpf_jiffies64();
	p->direction = direction;
	return p;
}

/* `mac` is aligned to 2 bytes at least. */
static bool is_from_mac(const struct packet *p, const void *mac)
{
	return p->macs.src_high == *(u16 *)mac &&
	       (u16)p->macs.src_low == *(u16 *)(mac + 2) &&
	       p->macs.src_low >> 16 == *(u16 *)(mac + 4);
}

static bool is_for_mac(const struct packet *p, const void *mac)
{
	return (u16)p->macs.dst_high == *(u16 *)mac &&
	       p->macs.dst_high >> 16 == *(u16 *)(mac + 2) && p->macs.dst_low == *(u16 *)(mac + 4);
}

/* Whether another node's pod may come by the link `from`: its prefix says which that is. */
static bool is_way_of(const struct prefix *remote, u32 from, const struct settings *s)
{
	if (remote->flags & PREFIX_DIRECT)
		return from == remote->ifindex;
	return !(s->flags & SETTING_OVERLAY);
}

/*
 * A pod's address in the source of what came from elsewhere. Other nodes' pods arrive through the
 * overlay or by the link that their node is on; without either the operator's routers bring them.
 * This node's come through their own links, or their bridge, not by an uplink.
 */
static bool is_forged_by(u32 from, struct packet *p, const struct settings *s,
			 const struct workload *src)
{
	struct prefix *prefix;

	if (from == s->overlay_ifindex)
		return false;
	if (src)
		return src->ifindex != from &&
		       (!(s->flags & SETTING_BRIDGE) || uplinks.lookup(&from));
	prefix = prefix_of(&p->tuple.src);
	if (prefix && (prefix->flags & PREFIX_REMOTE))
		return !is_way_of(prefix, from, s);
	if (!prefix || !(prefix->flags & PREFIX_LOCAL))
		return false;
	/* To a bridge's pods netfilter masquerades other pods of it with the bridge's own address. */
	return !(s->flags & SETTING_BRIDGE) || !is_own_gateway(s, &p->tuple.src) ||
	       uplinks.lookup(&from);
}

static bool is_forged(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	return is_forged_by(skb->ingress_ifindex, p, s, workloads.lookup(&p->tuple.src));
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
