/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every struct and enum that crosses the border between the kernel's programs and Python.
 * bpf/layout.py is generated from the BTF of this file (bpf/genlayout.py); nothing else may
 * describe these bytes. Plain structs only: no bit fields, no implicit padding (pad fields are
 * named pad*), enum values below 2^31.
 *
 * Addresses are 128 bit, IPv4 mapped (::ffff:a.b.c.d). __be16 fields are in network order.
 * An id is the first 64 bits of a hash over the content it names (docs/decisions/0001), so a
 * row's bytes depend on the cluster's state only, never on history.
 */
#ifndef WEFT_LAYOUT_H
#define WEFT_LAYOUT_H

#include <linux/types.h>

#include "reason.h"

struct address {
	__be32 word[4];
};

/* settings[0]: what the programs must know of this node. */
enum setting_flag {
	SETTING_OVERLAY = 1,	/* overlay_ifindex carries pods' traffic between nodes */
	SETTING_BRIDGE = 2,	/* pods hang on a bridge: links see ARP, ND and flooded frames */
	SETTING_MASQUERADE = 4, /* pods' traffic leaving through an uplink gets its address */
	SETTING_LAYER3 = 8,	/* an uplink has no Ethernet header: its row says which */
	SETTING_NODE_SOCKETS = 16, /* pods' sockets are left alone, the node's are not */
	SETTING_MASQUERADE_CLIENTS = 32, /* Services' clients are masqueraded as kube-proxy does */
};

struct settings {
	__u64 host_netns;	 /* cookie of the node's network namespace */
	__u32 overlay_ifindex;	 /* 0: none */
	__u32 flags;		 /* enum setting_flag */
	__u32 overlay_vni;
	__u32 hz;		 /* jiffies in a second */
	__u16 snat_port_min;	 /* host order, inclusive */
	__u16 snat_port_max;
	__u32 event_sample;	 /* one forwarded new flow in this many makes an event; 0: none */
	struct address gateway4; /* this node's own address inside its podCIDR; zero: none */
	struct address gateway6;
	__be16 overlay_port; /* UDP; 0: none */
	__be16 ask_port;     /* UDP: nodes ask each other whose an address is; 0: none */
	/* The two ends of the hold link. What is sent into one comes out of the other a little
	 * later: what pods sent goes into hold_from_pod, what came for them into hold_to_pod. */
	__u32 hold_from_pod; /* ifindex; 0: none */
	__u32 hold_to_pod;
	__u32 bridge_ifindex; /* the pods' bridge, with SETTING_BRIDGE; 0: none */
	struct address node4; /* this node's InternalIP; zero: none */
	struct address node6;
	__u8 bridge_mac[6];
	__u16 pad0;
};

/* workloads: a local pod's address -> its link and the two rule sets that judge it. */
enum workload_flag {
	WORKLOAD_NO_REDIRECT = 1, /* deliver through the stack (shaping, foreign qdiscs) */
};

/* A revision: bits 40..63 say who holds the address (never 0), the rest what judges it. */
#define REVISION_HOLDER_SHIFT 40

struct workload {
	__u64 ingress_set; /* 0: not isolated in this direction */
	__u64 ingress_revision;
	__u64 egress_set;
	__u64 egress_revision;
	__u32 ifindex; /* host-side link */
	__u32 flags;   /* enum workload_flag */
	__u8 mac[6];   /* the pod's side */
	__u8 host_mac[6];
	__u32 pad;
};

/* pod_links: the host end of a pod's link -> the pod's addresses; zero: none in that family. */
struct pod_link {
	struct address addr4;
	struct address addr6;
};

/* sandboxes: the cookie of a pod's network namespace -> what its sockets are spared. */
enum sandbox_flag {
	SANDBOX_NO_SOCKETS = 1, /* dials as it is: a mesh in the pod wants to see the VIP */
};

struct sandbox {
	__u32 flags; /* enum sandbox_flag */
};

/* frontends: where a Service is reached. port 0 and proto 0: the address itself is a Service's. */
struct frontend_key {
	struct address addr;
	__be16 port;
	__u8 proto; /* IPPROTO_* */
	__u8 pad;
};

enum frontend_flag {
	FRONTEND_EXTERNAL = 1,	     /* a NodePort's, a load balancer's or an externalIP */
	FRONTEND_NODE_PORT = 2,
	FRONTEND_LOOPBACK = 4,	     /* for the node's own sockets only */
	FRONTEND_LOCAL_INSIDE = 8,   /* pods and this node get its local endpoints only */
	FRONTEND_LOCAL_OUTSIDE = 16, /* so do clients outside, pods and this node get all */
	FRONTEND_ELSEWHERE = 32,     /* no local endpoint, but one elsewhere: drop, not refuse */
	FRONTEND_RANGES = 64,	     /* for clients within source_ranges only */
	FRONTEND_NODE_IN_RANGES = 128, /* this node is one of them */
	FRONTEND_OPEN = 256, /* port 0: what it does not serve is not refused (no ClusterIP) */
	FRONTEND_OTHER_PROXY = 512, /* port 0: another proxy's Service, left to the stack */
	FRONTEND_STACK = 1024, /* SCTP: netfilter chooses and translates, from the same slots */
};

struct frontend {
	__u64 service;
	__u64 local_service;  /* whose slots are this node's endpoints */
	__u32 backends;	      /* slots 0..backends-1 of service; those after are for its ring only */
	__u32 local_backends; /* and these of local_service */
	__u32 affinity_s;     /* a client keeps its backend for so long; 0: no longer than a flow */
	__u32 flags;	      /* enum frontend_flag */
	__u32 ring_size;      /* places in rings; 1: the only slot, without a row; 0: none */
			      /* FRONTEND_STACK: the first slots are so many of the node's own */
	__u32 pad;
};

/* source_ranges (LPM): who may reach a load balancer's address of a service. */
struct range_key {
	__u32 prefix_len; /* bits after this field: 64 service, then of addr, IPv4 from 96 */
	__u32 service_low;
	__u32 service_high;
	struct address addr;
};

/* slots: the endpoints that new flows of a service are spread over. */
struct slot_key {
	__u64 service;
	__u32 index;
	__u32 pad;
};

struct slot {
	__u64 backend;
	struct address addr;
	__be16 port;
	__u16 pad0;
	__u32 pad1;
};

/* rings: how clients outside are spread over a service's endpoints, on every node alike. */
struct ring_key {
	__u64 service;
	__u64 chunk;
};

struct ring {
	__u16 slot[64];
};

/* backends: id -> alive. A flow whose backend is absent here chooses again (UDP). */
enum backend_flag {
	BACKEND_CHOSEN = 1,	  /* it has a slot of its service: new flows may go to it */
	BACKEND_CHOSEN_LOCAL = 2, /* it has one of the local service */
	BACKEND_CHOSEN_OUTSIDE = 4, /* it has places in its service's ring */
};

struct backend {
	__u64 service;
	__u32 flags; /* enum backend_flag */
	__u32 pad;
};

/* A flow's addresses as a packet carries them, or sorted (see flows). */
struct tuple {
	struct address src;
	struct address dst;
	__be16 sport; /* ICMP echo: the identifier, in both ports */
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
};

/*
 * flows: conntrack, keyed by the tuple after translation, its two ends sorted so that both
 * directions find one entry. initiator: the end that sent the first packet.
 */
enum flow_flag {
	FLOW_INITIATOR_IS_DST = 1, /* in the sorted key the initiator stands second */
	FLOW_OWN_NODE = 2,	   /* the initiator is this node itself: ingress always allowed */
	FLOW_TRANSLATED = 4,	   /* the initiator dialled vip:vip_port */
	FLOW_PICKED_UP = 8,	   /* TCP first seen in its middle: either end may have called */
	FLOW_REPLIED = 16,
	FLOW_CLOSING = 32,	  /* RST or both ends' FIN seen: the same ports may start anew */
	FLOW_FIN_INITIATOR = 64,  /* one end's FIN: the other may go on for long */
	FLOW_FIN_RESPONDER = 128,
};

/* The way a flow's first packet took; replies take the same way back. */
enum flow_path {
	PATH_NONE = 0,
	PATH_REDIRECT = 1,
	PATH_STACK = 2,
	PATH_OVERLAY = 3,
	PATH_DIRECT = 4,  /* to or from a node on the same link, without a tunnel */
	PATH_HAIRPIN = 5, /* backend and client are one pod: the client's address is masked */
	PATH_UPLINK = 6,  /* from a client outside, through a Service; it is behind `ifindex` */
	PATH_ENTRY = 7,	  /* the same, brought through the overlay by the node whose end `vip` is */
	PATH_NAT = 10,	  /* the stack's, where netfilter translates; vip set: as it was dialled */
	PATH_MASKED = 11, /* the stack's, and the backend gets it with this node's address as source */
};

struct flow {
	__u64 initiator_revision; /* egress revision of a local initiator, else 0 */
	__u64 responder_revision; /* ingress revision of a local responder, else 0 */
	struct address vip;
	__be16 vip_port;
	__u8 flags; /* enum flow_flag */
	__u8 path;  /* enum flow_path */
	__u32 ifindex; /* PATH_UPLINK: the link that its client's last packet came by */
	__be16 client_port; /* the initiator's, where the flow has another (apart.h); 0: its own */
	__u16 pad0;
	__u32 seen; /* jiffies, low 32 bits */
};

/* north_south[0]: what must be looked up for clients outside in the node's own traffic. */
struct north_south {
	__u32 translated; /* one went through a Service here */
	__u32 by_stack;	  /* one's flow took the stack */
};

/* translations: a client's tuple to a VIP -> the backend chosen for it. */
struct translation {
	__u64 backend;
	struct address addr;
	__be16 port;
	__be16 client_port; /* what the backend is to see of the client; 0: its own */
	__u32 seen; /* jiffies, low 32 bits */
};

/* affinities: a client of a service with session affinity -> the backend it gets again. */
struct affinity_key {
	__u64 service;
	struct address client;
};

/* snat: at an uplink; leaving tuple -> the node's address and port, arriving tuple -> the pod's. */
struct snat {
	struct address addr;
	__be16 port;
	__u16 flags; /* enum flow_flag: what the arriving tuple's row saw of the connection */
	__u32 seen; /* jiffies, low 32 bits */
};

/* sockets: what a socket dialled before connect() or sendto() was rewritten. */
struct socket_key {
	__u64 cookie;
	struct address addr; /* the backend */
	__be16 port;
	__u16 pad0;
	__u32 pad1;
};

struct socket_vip {
	struct address addr;
	__be16 port;
	__u16 pad;
};

/* prefixes (LPM): whose an address range is. ::ffff:0:0/96 is always a row of its own. */
enum prefix_flag {
	PREFIX_REMOTE = 1,	  /* another node's podCIDR: node is its underlay address */
	PREFIX_LOCAL = 2,	  /* this node's podCIDR */
	PREFIX_NO_MASQUERADE = 4, /* never rewrite the source towards it */
	PREFIX_SERVICE = 8,	  /* a Service range */
	PREFIX_NODE = 32,	  /* a node's own address, where its tunnels may end */
	PREFIX_DIRECT = 16,	  /* beside REMOTE: node is the next hop on the link ifindex */
};

struct prefix_key {
	__u32 prefix_len; /* bits of addr: IPv4 counts from 96 */
	struct address addr;
};

struct prefix {
	struct address node; /* zero unless PREFIX_REMOTE */
	__u32 flags;	     /* enum prefix_flag */
	__u32 ifindex;	     /* PREFIX_DIRECT: the uplink that node is on, else 0 */
	__u32 mtu;	     /* the longest packet through the tunnel there; 0: the overlay's */
};

/*
 * Policy. peers (hash, an address) and blocks (LPM) give a peer class, 0: matches nothing;
 * ports (LPM over set, protocol, port) gives a port class of the set, 0: the rest;
 * verdicts (set, class) gives one allow bit per port class. No row for a class: the set's row
 * of class 0. No row at all: drop.
 */
struct port_key {
	__u32 prefix_len; /* bits after this field: 64 set, 8 proto, 8 pad, then of the port */
	__u32 set_low;
	__u32 set_high;
	__u8 proto;
	__u8 pad;
	__be16 port;
};

struct verdict_key {
	__u64 set;
	__u64 peer;
};

struct verdict {
	__u64 allow[4]; /* bit n: port class n */
};

/* uplinks: a link that leads outside -> the addresses that pods' traffic leaves with. */
enum uplink_flag {
	UPLINK_LAYER3 = 1, /* no Ethernet header (tun, WireGuard) */
};

struct uplink {
	struct address addr4; /* zero: none */
	struct address addr6;
	__u32 flags; /* enum uplink_flag */
};

/* fragments: a datagram's protocol and ports, written by its first fragment. */
struct fragment_key {
	struct address src;
	struct address dst;
	__be32 id;
	__u8 proto; /* IPv6: 0 */
	__u8 pad[3];
};

struct fragment {
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
	__u32 seen; /* jiffies, low 32 bits */
};

/* counters (per CPU), index reason * DIRECTION_COUNT + direction. */
struct counter {
	__u64 packets;
	__u64 bytes;
};

/* events (ring buffer): every policy drop, other drops, new flows as sampled. */
struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 set;     /* policy drops: the rule set that judged, its revision, the peer's class */
	__u64 revision;
	__u64 peer;
	struct tuple tuple; /* after translation */
	struct address vip; /* what the initiator dialled; zero: tuple.dst */
	__be16 vip_port;
	__u8 reason; /* enum reason */
	__u8 direction;
	__u8 port_class;
	__u8 tcp_flags;
	__u8 family; /* 4 or 6 */
	__u8 pad0;
	__u32 ifindex;
	__u32 bytes;
};

#endif
