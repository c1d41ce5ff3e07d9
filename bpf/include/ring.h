/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How clients outside are spread over a service's endpoints: by a ring that is alike on every node
 * and a hash of the client, so that any node picks the same one and can go on with a connection
 * that another took in (proxy/plan/maglev.py).
 */
#ifndef WEFT_RING_H
#define WEFT_RING_H

#include "service.h"

#define RING_CHUNK (sizeof(((struct ring *)0)->slot) / sizeof(u16))

/* Its rounds are SplitMix64's (Steele and others, OOPSLA 2014). */
static u64 mix(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0xbf58476d1ce4e5b9ULL;
	hash = (hash ^ hash >> 29) * 0x94d049bb133111ebULL;
	return hash ^ hash >> 32;
}

/* With affinity one client's flows all go one way: its port does not count. */
static u32 client_hash(const struct tuple *flow, const struct frontend *frontend)
{
	const u64 *src = (const u64 *)&flow->src;
	u64 hash = mix(mix(frontend->service, src[0]), src[1]);

	return mix(hash, frontend->affinity_s ? 0 : flow->sport) >> 16;
}

/* NULL: the ring is being written. */
static struct slot *slot_of_ring(const struct tuple *flow, const struct frontend *frontend)
{
	u32 place = client_hash(flow, frontend) % frontend->ring_size;
	struct ring_key key = {.service = frontend->service, .chunk = place / RING_CHUNK};
	struct slot_key slot = {.service = frontend->service};
	struct ring *ring;

	if (frontend->ring_size > 1) {
		ring = rings.lookup(&key);
		if (!ring)
			return 0;
		slot.index = ring->slot[place % RING_CHUNK];
	}
	return slots.lookup(&slot);
}

#endif
