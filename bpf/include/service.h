/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a VIP to a backend. `frontends` says which service, `slots` which endpoints, `translations`
 * what a client was given before. Shared by the packet hooks and the socket hooks; random choice,
 * as kube-proxy's.
 */
#ifndef WEFT_SERVICE_H
#define WEFT_SERVICE_H

#include "address.h"

/* Idle limits, seconds: a flow's longest for the protocol (flow.h). */
#define TRANSLATION_TCP_S 86400
#define TRANSLATION_UDP_S 180

static struct frontend *frontend_at(const struct address *addr, __be16 port, u8 proto)
{
	struct frontend_key key = {.addr = *addr, .port = port, .proto = proto};

	return frontends.lookup(&key);
}

/*
 * Whether its backends see this node as their client, where the setting says so. As kube-proxy
 * has it: not for policy Local, and of clients `inside` only for those that asked at an external
 * address.
 */
static bool masks_clients(const struct settings *s, const struct frontend *frontend, bool inside)
{
	if (!(s->flags & SETTING_MASQUERADE_CLIENTS) ||
	    (frontend->flags & FRONTEND_LOCAL_OUTSIDE))
		return false;
	return !inside || (frontend->flags & FRONTEND_EXTERNAL);
}

/* Whether a client may use a frontend that is for source_ranges only. */
static bool is_in_ranges(const struct frontend *frontend, const struct address *client)
{
	struct range_key key = {.prefix_len = 64 + 128, .addr = *client};

	key.service_low = (u32)frontend->service;
	key.service_high = frontend->service >> 32;
	return source_ranges.lookup(&key) != 0;
}

/* One of the frontend's endpoints, of this node's only if `local`; NULL: it has none. */
static struct slot *random_slot(const struct frontend *frontend, bool local)
{
	struct slot_key key = {.service = local ? frontend->local_service : frontend->service};
	u32 count = local ? frontend->local_backends : frontend->backends;
	struct slot *slot;

	if (!count)
		return 0;
	key.index = bpf_get_prandom_u32() % count;
	slot = slots.lookup(&key);
	if (slot)
		return slot;
	/* The table shrank between the two look-ups: the first slot goes last. */
	key.index = 0;
	return slots.lookup(&key);
}

/* Whether clients in the cluster get this node's endpoints only. */
static bool is_local_inside(const struct frontend *frontend)
{
	return frontend->flags & FRONTEND_LOCAL_INSIDE;
}

static bool has_backend(u64 id)
{
	return backends.lookup(&id) != 0;
}

static enum backend_flag chosen_inside(const struct frontend *frontend)
{
	return is_local_inside(frontend) ? BACKEND_CHOSEN_LOCAL : BACKEND_CHOSEN;
}

/* What a client of a service with affinity was given, while it is one of the frontend's `chosen`. */
static struct translation *kept_choice(const struct settings *s, const struct frontend *frontend,
				       const struct address *client, u32 now,
				       enum backend_flag chosen)
{
	struct affinity_key key = {.service = frontend->service, .client = *client};
	struct translation *known;
	struct backend *backend;

	if (!frontend->affinity_s)
		return 0;
	known = affinities.lookup(&key);
	if (!known || is_older(now, known->seen, frontend->affinity_s, s))
		return 0;
	backend = backends.lookup(&known->backend);
	return backend && (backend->flags & chosen) ? known : 0;
}

/* From now on, for as long as the service's affinity lasts. */
static void keep_choice(u64 service, const struct address *client,
			const struct translation *chosen)
{
	struct affinity_key key = {.service = service, .client = *client};

	affinities.update(&key, (struct translation *)chosen);
}

#endif
