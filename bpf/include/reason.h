/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a program on a link ends a packet, and why: what is counted and told; marks. Part of layout.h, a
 * file of its own for its length.
 */
#ifndef WEFT_REASON_H
#define WEFT_REASON_H

/* Every exit of every program counts one of these. Below REASON_DROPS: the packet went on. */
enum reason {
	REASON_NONE = 0,
	REASON_STACK = 1,	/* passed to the node's stack or the next program */
	REASON_DELIVERED = 2,	/* redirected into a local pod */
	REASON_TUNNELLED = 3,	/* sent to another node through the overlay */
	REASON_MASQUERADED = 4, /* left through an uplink with the node's address */
	REASON_RESTORED = 5,	/* a masqueraded flow's reply, its pod address put back */
	REASON_NOT_OURS = 6,	/* nothing of ours in it: passed untouched */
	REASON_DIRECT = 7,	/* sent to another node on the same link */
	REASON_HELD = 8,	/* waits on the hold link for what is not known yet */
	REASON_ANSWERED = 9,	/* from the address that was dialled: to a client outside, or an echo */
	REASON_DROPS = 16,
	REASON_POLICY_INGRESS = 16,
	REASON_POLICY_EGRESS = 17,
	REASON_SOURCE_SPOOFED = 18,	   /* a pod sent with an address or MAC not its own */
	REASON_ROUTER_ADVERT_SPOOFED = 19, /* a pod played the router */
	REASON_NO_BACKEND = 20,		   /* answered with a refusal */
	REASON_MALFORMED = 21,
	REASON_MAPPED_ADDRESS = 22, /* ::ffff:0:0/96 on the wire */
	REASON_FRAGMENT_UNKNOWN = 23,
	REASON_OVERLAY_SOURCE = 24, /* a tunnel packet from no node, or from another's prefix */
	REASON_NO_WORKLOAD = 25,    /* this node's podCIDR, but no pod has the address */
	REASON_SNAT_EXHAUSTED = 26,
	REASON_TABLE_FULL = 27,
	REASON_FLOODED = 28, /* a bridge's copy for another MAC */
	REASON_HELPER_FAILED = 29,
	REASON_PROTOCOL_UNKNOWN = 30, /* nothing could judge it (not IP, tagged) or bring an answer back */
	REASON_NO_SERVICE = 31,	      /* a Service range's address that no Service has */
	REASON_NEIGHBOUR_SPOOFED = 32, /* ARP or ND: another's address or MAC, or no neighbour */
	REASON_TUNNEL_FORGED = 33,     /* a pod's packet to where nodes end their tunnels or ask */
	REASON_SOURCE_ROUTED = 34, /* names routers on its way: where it ends nothing could judge */
	REASON_NO_LOCAL_BACKEND = 35, /* policy Local: endpoints elsewhere, none on this node */
	REASON_SOURCE_RANGE = 36, /* its client is not within the load balancer's source ranges */
	REASON_TOO_BIG = 41, /* of a client outside: answered with what its tunnel carries */
	REASON_UNTRANSLATED = 47, /* SCTP as netfilter should not have left it: to or past a VIP */
	REASON_COUNT = 64,
};

enum direction {
	DIRECTION_FROM_POD = 0,
	DIRECTION_TO_POD = 1,
	DIRECTION_FROM_UPLINK = 2,
	DIRECTION_TO_UPLINK = 3,
	DIRECTION_FROM_OVERLAY = 4,
	DIRECTION_TO_OVERLAY = 5,
	DIRECTION_SOCKET = 6,
	DIRECTION_HELD = 7, /* out of the hold link */
	DIRECTION_COUNT = 8,
};

/* Marks that packets bear on this node; none comes from a pod or from outside. */
enum mark {
	MARK_HAIRPIN = 0x77656670, /* netfilter: a pod's SCTP to itself, with the node's address */
};

#endif
