/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Source NAT of pods' packets at an uplink, and its reverse. Two rows a flow in `snat`: the tuple
 * that leaves a pod -> the node's address and port; the tuple that arrives -> the pod's. The
 * arriving one is the reservation (two CPUs cannot both insert it) and carries the state.
 *
 * TCP, UDP and echo get a port of the range. Of every other protocol only the address changes: a
 * flow of SCTP is told by the ports that it has (its CRC covers no address, RFC 9260 6.8), one of
 * GRE, ESP and the rest by its two addresses.
 */
#ifndef WEFT_MASQUERADE_H
#define WEFT_MASQUERADE_H

#include "flow.h"
#include "fragment.h"
#include "hold.h"
#include "rewrite.h"
#include "service.h"

/* As many as nf_nat tries at first (net/netfilter/nf_nat_core.c, 6.18). */
#define PORT_PROBES 128
/* Where none of these is free, so many more in order: of the default range a quarter. The verifier
 * follows no more than 8,192 branches deep, and there are five in a turn. */
#define PORT_SEARCH 1024

/* Where in the range the last search ended, and when it was: jiffies. */
struct port_search {
	u32 at;
	u32 when;
};

/* The programs' own, not in maps.h. */
BPF_TABLE("array", u32, struct port_search, port_searches, 1);

static bool is_icmp(const struct packet *p)
{
	return p->tuple.proto == IPPROTO_ICMP || p->tuple.proto == IPPROTO_ICMPV6;
}

static bool has_snat_port(const struct packet *p)
{
	if (is_icmp(p))
		return is_icmp_echo(p->tuple.proto, p->icmp_type) || p->fragment == FRAGMENT_LATER;
	return p->tuple.proto == IPPROTO_TCP || p->tuple.proto == IPPROTO_UDP;
}

/* The checksum covers the addresses where rewrite.h does not mend it, or no answer finds back. */
static bool is_bound_to_address(const struct packet *p)
{
	return is_icmp(p) || p->tuple.proto == IPPROTO_DCCP || p->tuple.proto == IPPROTO_UDPLITE;
}

/* The answer to p->tuple once `port` of `addr` stands for its source. */
static void arriving_key(const struct packet *p, const struct address *addr, __be16 port,
			 struct tuple *key)
{
	reverse_tuple(&p->tuple, key);
	key->dst = *addr;
	key->dport = port;
	if (is_icmp(p))
		key->sport = port;
}

/* Writes what changed only: CPUs share the row. */
static void touch(const struct packet *p, struct snat *arriving, bool reply)
{
	u8 flags = flags_after(p, is_first_of_tcp(p) ? 0 : arriving->flags, reply);

	if (arriving->seen != p->now)
		arriving->seen = p->now;
	if (arriving->flags != flags)
		arriving->flags = flags;
}

static bool is_in_range(const struct settings *s, __be16 port)
{
	return BE16(port) >= s->snat_port_min && BE16(port) <= s->snat_port_max;
}

static bool is_itself(const struct snat *row, const struct address *addr, __be16 port)
{
	return row->port == port && same_address(&row->addr, addr);
}

/* Takes p->key if it is free, its own, or idle for long enough to be. A failed insert costs LRU a
 * row, so it is looked up first. */
static bool reserve(const struct packet *p, const struct settings *s, struct snat *row)
{
	struct tuple key = p->key;
	struct snat *held = snat.lookup(&key);

	if (!held)
		return !snat.insert(&key, row);
	if (!is_itself(held, &row->addr, row->port) &&
	    !is_idle(p, s, held->seen, idle_limit_s(key.proto, held->flags)))
		return false;
	return !snat.update(&key, row);
}

/*
 * Whether the port of a leaving row still is its own: looked up once a second and where the
 * connection begins or ends, so that no row outlives its reservation by more. A reservation that
 * LRU took away is made again.
 */
static bool still_reserved(struct packet *p, const struct settings *s, struct snat *leaving)
{
	struct snat own = {.addr = p->tuple.src, .port = p->tuple.sport, .seen = p->now};
	struct snat *arriving;

	if (p->now - leaving->seen < s->hz && !(p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)))
		return true;
	arriving_key(p, &leaving->addr, leaving->port, &p->key);
	arriving = snat.lookup(&p->key);
	if (arriving && !is_itself(arriving, &p->tuple.src, p->tuple.sport))
		return false;
	leaving->seen = p->now;
	if (arriving) {
		touch(p, arriving, false);
		return true;
	}
	own.flags = flags_after(p, 0, false);
	return !snat.insert(&p->key, &own);
}

/*
 * Whether the node's own packet may go as it is. From a port of the range it may only while that
 * is reserved for itself: a pod's flow that had it first is whom the answer would go to. Where
 * there is no other port to give, the node's flow takes the pod's place.
 */
static bool keeps_own_port(struct packet *p, const struct settings *s, const struct address *addr)
{
	struct snat own = {.addr = p->tuple.src, .port = p->tuple.sport, .seen = p->now};
	bool has_port = has_snat_port(p);
	struct snat *held;

	if (!same_address(&p->tuple.src, addr) || p->fragment == FRAGMENT_LATER ||
	    (has_port ? !is_in_range(s, p->tuple.sport) : is_bound_to_address(p)))
		return true;
	own.flags = flags_after(p, 0, false);
	arriving_key(p, addr, p->tuple.sport, &p->key);
	held = snat.lookup(&p->key);
	if (held && is_itself(held, addr, own.port)) {
		touch(p, held, false);
		return true;
	}
	if (!has_port)
		return !snat.update(&p->key, &own);
	return !snat.lookup(&p->tuple) && reserve(p, s, &own);
}

/* Every port of a range follows from every other by this step: a prime above any range's size. */
static u32 random_step(u32 range)
{
	u32 prime;

	switch (bpf_get_prandom_u32() & 7) {
	case 0: prime = 65537; break;
	case 1: prime = 92821; break;
	case 2: prime = 131071; break;
	case 3: prime = 174763; break;
	case 4: prime = 524287; break;
	case 5: prime = 999983; break;
	case 6: prime = 1299709; break;
	default: prime = 15485863;
	}
	return prime % range;
}

/*
 * Whether the answer p->key at `port` is nobody's: not even a client's of a Service that this node
 * has there, a NodePort say. p->buffer: the key of such a frontend; on the stack it would be
 * new to the verifier in every turn.
 */
static bool is_free(struct packet *p, const struct settings *s, __be16 port)
{
	struct frontend_key *served = (struct frontend_key *)p->buffer;
	struct snat *held;

	p->key.dport = port;
	held = snat.lookup(&p->key);
	if (held && !is_idle(p, s, held->seen, idle_limit_s(p->key.proto, held->flags)))
		return false;
	served->port = port;
	return !frontends.lookup(served);
}

/*
 * The first port that is free from where the last search ended, so that a packet sent again gets on
 * through the range; 0: none of so many. One search in a tick for all: where nothing is left, new
 * flows may come faster than a node can search for them.
 */
static __be16 search_port(struct packet *p, const struct settings *s, u32 low, u32 range)
{
	u32 zero = 0, at, i;
	struct port_search *search = port_searches.lookup(&zero);

	if (!search || search->when == p->now)
		return 0;
	search->when = p->now;
	at = search->at;
	for (i = 0; i < PORT_SEARCH; i++) {
		asm volatile("" : "+r"(i));
		at = (at + 1) % range;
		if (is_free(p, s, BE16((u16)(low + at))))
			break;
	}
	search->at = at;
	return i < PORT_SEARCH ? p->key.dport : 0;
}

/*
 * A port for the answer p->key; 0: none was found. Each attempt begins elsewhere and goes in other
 * steps, so that neither a neighbourhood that is full nor the same packet sent again finds the same
 * ports taken. For an echo there is no search: the next comes by itself.
 */
static __be16 find_port(struct packet *p, const struct settings *s)
{
	u32 low = s->snat_port_min, range = s->snat_port_max - low + 1, at, step, i;
	__be16 port;

	if (s->snat_port_max < low || !low)
		return 0;
	at = bpf_get_prandom_u32() % range;
	step = random_step(range);
	for (i = 0; i < PORT_PROBES; i++) {
		/* Else LLVM falls through into the loop's head: a back-edge to 6.1's verifier. */
		asm volatile("" : "+r"(i));
		if (i >= range)
			return 0;
		port = BE16((u16)(low + at));
		if (is_icmp(p))
			p->key.sport = port;
		if (is_free(p, s, port))
			return port;
		at = (at + step) % range;
	}
	return is_icmp(p) ? 0 : search_port(p, s, low, range);
}

/* A port for the flow of p->tuple, into both rows; *leaving says which. */
static bool allocate(struct packet *p, const struct settings *s, const struct address *addr,
		     struct snat *leaving)
{
	struct snat pod = {.addr = p->tuple.src, .port = p->tuple.sport, .seen = p->now};

	pod.flags = flags_after(p, 0, false);
	leaving->addr = *addr;
	leaving->port = p->tuple.sport;
	leaving->seen = p->now;
	arriving_key(p, addr, leaving->port, &p->key);
	*(struct frontend_key *)p->buffer =
		(struct frontend_key){.addr = *addr, .proto = p->key.proto};
	if (has_snat_port(p)) {
		leaving->port = find_port(p, s);
		if (!leaving->port)
			return false;
	}
	return reserve(p, s, &pod) && !snat.update(&p->tuple, leaving);
}

static enum reason put_source(struct __sk_buff *skb, struct packet *p, const struct snat *leaving)
{
	p->out = p->tuple;
	p->out.src = leaving->addr;
	p->out.sport = leaving->port;
	return rewrite(skb, p, &p->tuple, &p->out) ? REASON_HELPER_FAILED : REASON_MASQUERADED;
}

/*
 * An error about a packet that came back to a pod: whom it is for knows the node's address. A pod's
 * own about what no flow of its knows would leave under the pod's address, and about what came for
 * another pod it has nothing to say.
 */
static enum reason masquerade_error(struct __sk_buff *skb, struct packet *p,
				    const struct settings *s, const struct workload *pod)
{
	struct snat *leaving;

	p->wire = p->tuple;
	reverse_tuple(&p->embedded, &p->tuple);
	if (pod && !same_address(&p->wire.src, &p->tuple.src))
		return REASON_PROTOCOL_UNKNOWN;
	leaving = snat.lookup(&p->tuple);
	if (leaving)
		return put_source(skb, p, leaving);
	return !pod || find_flow(p, s) ? REASON_NOT_OURS : REASON_PROTOCOL_UNKNOWN;
}

static enum reason masquerade(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			      const struct address *addr)
{
	struct snat *leaving = snat.lookup(&p->tuple), fresh = {};
	struct flow *flow;

	if (leaving && same_address(&leaving->addr, addr) && still_reserved(p, s, leaving))
		return put_source(skb, p, leaving);
	/* Who was called by the pod's own address is answered from it. */
	flow = find_flow(p, s);
	if (!leaving && flow && is_reply(p, flow))
		return REASON_NOT_OURS;
	if (!has_snat_port(p) && is_bound_to_address(p))
		return REASON_PROTOCOL_UNKNOWN;
	if (is_unset(addr) || !allocate(p, s, addr, &fresh))
		return REASON_SNAT_EXHAUSTED;
	return put_source(skb, p, &fresh);
}

static enum reason put_destination(struct __sk_buff *skb, struct packet *p,
				   const struct snat *arriving)
{
	p->out = p->tuple;
	p->out.dst = arriving->addr;
	p->out.dport = arriving->port;
	return rewrite(skb, p, &p->tuple, &p->out) ? REASON_HELPER_FAILED : REASON_RESTORED;
}

/* An error from outside about a packet that left with the node's address. */
static enum reason restore_error(struct __sk_buff *skb, struct packet *p)
{
	struct snat *arriving;

	p->wire = p->tuple;
	reverse_tuple(&p->embedded, &p->tuple);
	arriving = snat.lookup(&p->tuple);
	if (arriving)
		return put_destination(skb, p, arriving);
	p->tuple = p->wire;
	return REASON_NOT_OURS;
}

/* Of a later fragment the ports are known. */
static enum reason restore(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	struct snat *arriving;

	if (has_snat_port(p) ? !is_in_range(s, p->tuple.dport) : is_bound_to_address(p))
		return REASON_NOT_OURS;
	arriving = snat.lookup(&p->tuple);
	if (!arriving)
		return REASON_NOT_OURS;
	if (p->fragment == FRAGMENT_FIRST && know_fragment(p))
		return REASON_TABLE_FULL;
	touch(p, arriving, true);
	if (is_itself(arriving, &p->tuple.dst, p->tuple.dport))
		return REASON_NOT_OURS;
	return put_destination(skb, p, arriving);
}

#endif
