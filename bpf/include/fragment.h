/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ports for the fragments that carry none. The kernel has no reassembly helper for tc: the first
 * fragment leaves its ports, later ones find them; one that overtakes the first waits (hold.h).
 * Called once the source is proven, so that nobody writes for another.
 */
#ifndef WEFT_FRAGMENT_H
#define WEFT_FRAGMENT_H

#include "packet.h"

/* As long as anybody puts a datagram together (RFC 8200 4.5): then another may have its number. */
#define FRAGMENT_S 60

/* RFC 8200 4.5: of IPv6 the first fragment alone says what follows, and no other counts. */
static void fragment_key_of(const struct packet *p, struct fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->src = p->tuple.src;
	key->dst = p->tuple.dst;
	key->id = p->fragment_id;
	key->proto = p->fragment_proto;
}

/* The row is made in scratch: on the stack it costs the verifier half as much again. */
static enum reason note_first(struct packet *p, struct fragment_key *key)
{
	struct fragment *ends = (void *)p->buffer;

	__builtin_memset(ends, 0, sizeof(*ends));
	ends->sport = p->tuple.sport;
	ends->dport = p->tuple.dport;
	ends->proto = p->tuple.proto;
	ends->seen = p->now;
	return fragments.update(key, ends) ? REASON_TABLE_FULL : REASON_NONE;
}

static enum reason know_fragment(struct packet *p)
{
	struct fragment_key key = {};
	struct fragment *known;
	struct settings *s;

	if (!p->fragment)
		return REASON_NONE;
	fragment_key_of(p, &key);
	if (p->fragment == FRAGMENT_FIRST)
		return note_first(p, &key);
	known = fragments.lookup(&key);
	s = settings_row();
	if (!known || !s || is_older(p->now, known->seen, FRAGMENT_S, s))
		return REASON_FRAGMENT_UNKNOWN;
	p->tuple.proto = known->proto;
	p->tuple.sport = known->sport;
	p->tuple.dport = known->dport;
	return REASON_NONE;
}

#endif
