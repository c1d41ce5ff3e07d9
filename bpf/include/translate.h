/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A pod's packet to a VIP: p->tuple becomes the backend's, p->wire stays the dialled one; and a
 * reply's way back. `translations` is written only after the flow was admitted.
 */
#ifndef WEFT_TRANSLATE_H
#define WEFT_TRANSLATE_H

#include "apart.h"
#include "rewrite.h"
#include "ring.h"
#include "service.h"

/* A hairpin's source where the node has no address in the pod's range: 169.254.1.1, fe80::1. */
static void mask_address(const struct settings *s, u8 family, struct address *to)
{
	const struct address *own = family == 4 ? &s->gateway4 : &s->gateway6;

	if (!is_unset(own)) {
		*to = *own;
	} else if (family == 4) {
		set_ipv4(to, BE32(0xa9fe0101));
	} else {
		__builtin_memset(to, 0, sizeof(*to));
		to->word[0] = BE32(0xfe800000);
		to->word[3] = BE32(1);
	}
}

/* p->tuple as the backend is to see it. client_port: apart.h; 0: the client's own. */
static void put_backend(struct packet *p, const struct address *addr, __be16 port,
			__be16 client_port)
{
	if (client_port)
		p->tuple.sport = client_port;
	p->tuple.dst = *addr;
	p->tuple.dport = port;
}

static void dial_backend(struct packet *p, const struct address *addr, __be16 port,
			 __be16 client_port)
{
	p->vip = p->tuple.dst;
	p->vip_port = p->tuple.dport;
	p->client_port = client_port ? p->tuple.sport : 0;
	p->translated = 1;
	put_backend(p, addr, port, client_port);
}

static void retarget(struct packet *p, const struct settings *s, const struct address *addr,
		     __be16 port, __be16 client_port)
{
	p->wire = p->tuple;
	p->hairpin = same_address(addr, &p->tuple.src);
	dial_backend(p, addr, port, client_port);
	if (p->hairpin)
		mask_address(s, p->family, &p->tuple.src);
}

/*
 * A SYN that comes again: the first, not long ago, has no answer yet. Any other SYN begins another
 * connection, and is to find what the Service is now: its endpoints, its policy, its ranges.
 */
static bool is_repeated_syn(struct packet *p, const struct settings *s,
			    const struct translation *known)
{
	struct flow *flow;

	if (is_idle(p, s, known->seen, IDLE_UNREPLIED_S))
		return false;
	p->wire = p->tuple;
	put_backend(p, &known->addr, known->port, known->client_port);
	if (same_address(&p->tuple.src, &p->tuple.dst))
		mask_address(s, p->family, &p->tuple.src);
	flow = find_flow(p, s);
	p->tuple = p->wire;
	return flow && !(flow->flags & FLOW_REPLIED) && flow->vip_port == p->tuple.dport &&
	       same_address(&flow->vip, &p->tuple.dst);
}

/*
 * UDP follows the service: a backend that serves no more is not asked again, one that drains is
 * (kube-proxy's conntrack clean-up). An established connection keeps its own, serving or not.
 */
static bool is_usable(struct packet *p, const struct settings *s,
		      const struct translation *known)
{
	bool tcp = p->tuple.proto == IPPROTO_TCP;

	if (is_idle(p, s, known->seen, tcp ? TRANSLATION_TCP_S : TRANSLATION_UDP_S))
		return false;
	if (tcp && !is_first_of_tcp(p))
		return true;
	return has_backend(known->backend) && (!tcp || is_repeated_syn(p, s, known));
}

/* What the client of p->tuple was given before, if that still holds. */
static struct translation *known_choice(struct packet *p, const struct settings *s)
{
	struct translation *known = translations.lookup(&p->tuple);

	if (!known || !is_usable(p, s, known))
		return 0;
	/* SYNs leave it alone: no client may keep a choice by calling again and again. */
	if (p->now - known->seen >= s->hz && !is_first_of_tcp(p))
		known->seen = p->now;
	return known;
}

static bool translate_as_before(struct packet *p, const struct settings *s)
{
	struct translation *known = known_choice(p, s);

	if (known)
		retarget(p, s, &known->addr, known->port, known->client_port);
	return known;
}

static bool has_ports(const struct packet *p)
{
	return p->tuple.proto == IPPROTO_TCP || p->tuple.proto == IPPROTO_UDP;
}

/* Why a frontend gives its client no slot. */
static enum reason without_slot(const struct frontend *frontend)
{
	return frontend->flags & FRONTEND_ELSEWHERE ? REASON_NO_LOCAL_BACKEND : REASON_NO_BACKEND;
}

/*
 * Whether a client has outlived its affinity. Its next backend is another one for all that it may
 * expect; the ring, which does not ask for its port, would name the last one for ever.
 */
static bool had_choice(const struct packet *p, const struct frontend *frontend)
{
	struct affinity_key key = {.service = frontend->service, .client = p->tuple.src};

	if (!frontend->affinity_s || (p->tuple.proto == IPPROTO_TCP && !is_first_of_tcp(p)))
		return false;
	return affinities.lookup(&key);
}

/* The backend that a client of this service has, or else one for it: *addr and *port. */
static enum reason choose_backend(struct packet *p, const struct settings *s,
				  const struct frontend *frontend, bool local, bool by_ring,
				  const struct address **addr, __be16 *port)
{
	bool ring = by_ring && frontend->ring_size && !local;
	enum backend_flag chosen = local ? BACKEND_CHOSEN_LOCAL : BACKEND_CHOSEN;
	struct translation *kept;
	struct slot *slot = 0;

	if (ring)
		chosen = BACKEND_CHOSEN_OUTSIDE;
	kept = kept_choice(s, frontend, &p->tuple.src, p->now, chosen);
	if (frontend->affinity_s)
		p->affinity = frontend->service;
	if (kept) {
		p->backend = kept->backend;
		*addr = &kept->addr;
		*port = kept->port;
		return REASON_NONE;
	}
	if (ring && !had_choice(p, frontend))
		slot = slot_of_ring(&p->tuple, frontend);
	if (!slot)
		slot = random_slot(frontend, local);
	if (!slot)
		return without_slot(frontend);
	p->backend = slot->backend;
	*addr = &slot->addr;
	*port = slot->port;
	return REASON_NONE;
}

static bool is_echo_request(const struct packet *p)
{
	if (p->tuple.proto == IPPROTO_ICMP)
		return p->icmp_type == ICMP4_ECHO;
	return p->tuple.proto == IPPROTO_ICMPV6 && p->icmp_type == ICMP6_ECHO;
}

/* For a Service's address, but nothing that it serves there; REASON_NONE: not ours to say. */
static enum reason judge_whole(const struct packet *p, const struct frontend *whole)
{
	if (whole->flags & FRONTEND_OTHER_PROXY)
		return REASON_NONE;
	if (is_echo_request(p) && !p->fragment)
		return REASON_ANSWERED;
	return whole->flags & FRONTEND_OPEN ? REASON_NONE : REASON_NO_BACKEND;
}

/*
 * REASON_NONE with p->translated where the packet is for a VIP with a backend, REASON_NO_BACKEND
 * where it must be refused, REASON_ANSWERED where its echo is due, another where it is dropped,
 * plain REASON_NONE where no Service is meant.
 */
static enum reason translate(struct packet *p, const struct settings *s)
{
	struct frontend *frontend = 0;
	const struct address *addr = 0;
	__be16 port = 0;
	enum reason reason;

	if (has_ports(p)) {
		if (translate_as_before(p, s))
			return REASON_NONE;
		frontend = frontend_at(&p->tuple.dst, p->tuple.dport, p->tuple.proto);
		if (frontend && (frontend->flags & FRONTEND_LOOPBACK))
			return REASON_NONE;
	}
	if (!frontend) {
		frontend = frontend_at(&p->tuple.dst, 0, 0);
		return frontend ? judge_whole(p, frontend) : REASON_NONE;
	}
	/* In the middle of a connection that nobody remembers: no backend would know it. */
	if (p->tuple.proto == IPPROTO_TCP && !is_first_of_tcp(p))
		return REASON_NO_BACKEND;
	if ((frontend->flags & FRONTEND_RANGES) && !is_in_ranges(frontend, &p->tuple.src))
		return REASON_SOURCE_RANGE;
	reason = choose_backend(p, s, frontend, is_local_inside(frontend), false, &addr, &port);
	if (reason)
		return reason;
	retarget(p, s, addr, port, 0);
	return set_apart(p, s);
}

/* Whether the flow that a translated packet starts is to be masked. */
static bool starts_masked(const struct packet *p, const struct settings *s, bool inside)
{
	struct frontend *frontend;

	if (!(s->flags & SETTING_MASQUERADE_CLIENTS) || !p->translated || p->hairpin)
		return false;
	frontend = frontend_at(&p->vip, p->vip_port, p->tuple.proto);
	return frontend && masks_clients(s, frontend, inside);
}

/* Remembers a choice that was admitted, so that the client's next packet meets it. */
static enum reason remember_choice(struct packet *p)
{
	struct translation chosen = {};

	if (!p->backend)
		return REASON_NONE;
	chosen.backend = p->backend;
	chosen.addr = p->tuple.dst;
	chosen.port = p->tuple.dport;
	chosen.seen = p->now;
	if (p->affinity)
		keep_choice(p->affinity, &p->wire.src, &chosen);
	if (p->client_port)
		chosen.client_port = p->tuple.sport;
	return translations.update(&p->wire, &chosen) ? REASON_TABLE_FULL : REASON_NONE;
}

/*
 * A port that dials a backend by a VIP and then as what it is has one flow, whose answers come from
 * what was dialled last. (The other way round, or by two VIPs, there are two: apart.h.)
 */
static bool is_dialled_anew(const struct packet *p, const struct flow *flow)
{
	if (is_reply(p, flow) || p->kind == KIND_ICMP_ERROR)
		return false;
	if (!p->translated)
		return flow->flags & FLOW_TRANSLATED;
	return !(flow->flags & FLOW_TRANSLATED) || flow->vip_port != p->vip_port ||
	       flow->client_port != p->client_port || !same_address(&flow->vip, &p->vip);
}

/*
 * What went to the stack and has no answer yet may have been a VIP's before its Service was known:
 * a client that goes on from one port would never get there.
 */
static bool may_be_for_vip(const struct packet *p, const struct flow *flow)
{
	return flow->path == PATH_STACK && !(flow->flags & FLOW_REPLIED) && !is_reply(p, flow) &&
	       p->kind != KIND_ICMP_ERROR;
}

/* A reply of p->tuple gets the source that its client dialled; a hairpin's its client back. */
static enum reason restore_vip(struct __sk_buff *skb, struct packet *p, const struct flow *flow)
{
	p->out = p->tuple;
	p->out.src = flow->vip;
	p->out.sport = flow->vip_port;
	if (flow->path == PATH_HAIRPIN)
		p->out.dst = p->tuple.src;
	if (flow->client_port)
		p->out.dport = flow->client_port;
	return rewrite(skb, p, &p->tuple, &p->out);
}

#endif
