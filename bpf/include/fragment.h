/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ports for the fragments that carry none. The kernel has no reassembly helper for tc: the first
 * fragment leaves its ports, later ones find them; one that overtakes the first waits (hold.h).
 * Called once the source is proven, so that nobody writes for another.
 */
#ifndef WEFT_FRAGMENT_H
#define WEFT_FRAGMENT_H

#include "packet.h"

static enum reason know_fragment(struct packet *p)
{
	struct fragment_key key = {};
	struct fragment *known, ends = {};

	if (!p->fragment)
		return REASON_NONE;
	key.src = p->tuple.src;
	key.dst = p->tuple.dst;
	key.id = p->fragment_id;
	key.proto = p->tuple.proto;
	if (p->fragment == FRAGMENT_FIRST) {
		ends.sport = p->tuple.sport;
		ends.dport = p->tuple.dport;
		return fragments.update(&key, &ends) ? REASON_TABLE_FULL : REASON_NONE;
	}
	known = fragments.lookup(&key);
	if (!known)
		return REASON_FRAGMENT_UNKNOWN;
	p->tuple.sport = known->sport;
	p->tuple.dport = known->dport;
	return REASON_NONE;
}

#endif
