/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses as every key has them, 128 bit with IPv4 mapped, and what the node knows of them.
 */
#ifndef WEFT_ADDRESS_H
#define WEFT_ADDRESS_H

#include "kernel.h"
#include "maps.h"

static struct settings *settings_row(void)
{
	u32 zero = 0;

	return settings.lookup(&zero);
}

static void set_ipv4(struct address *to, __be32 ip)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = BE32(0xffff);
	to->word[3] = ip;
}

static void set_ipv6(struct address *to, const struct in6_addr *ip)
{
	to->word[0] = ip->s6_addr32[0];
	to->word[1] = ip->s6_addr32[1];
	to->word[2] = ip->s6_addr32[2];
	to->word[3] = ip->s6_addr32[3];
}

static bool same_address(const struct address *a, const struct address *b)
{
	return !((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) |
		 (a->word[2] ^ b->word[2]) | (a->word[3] ^ b->word[3]));
}

static bool is_unset(const struct address *a)
{
	return !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

static bool is_mapped(const struct address *a)
{
	return !(a->word[0] | a->word[1]) && a->word[2] == BE32(0xffff);
}

static bool is_multicast(const struct address *a)
{
	if (is_mapped(a))
		return (a->word[3] & BE32(0xf0000000)) == BE32(0xe0000000);
	return (a->word[0] & BE32(0xff000000)) == BE32(0xff000000);
}

static bool is_link_local6(const struct address *a)
{
	return (a->word[0] & BE32(0xffc00000)) == BE32(0xfe800000);
}

/*
 * Whether `seen` lies more than `limit_s` before `now`. Another CPU may have written it after `now`
 * was read here, right at a tick: a second of grace keeps what is newest from looking oldest.
 */
static bool is_older(u32 now, u32 seen, u32 limit_s, const struct settings *s)
{
	return now + s->hz - seen > (limit_s + 1) * s->hz;
}

/* This node's own address inside its podCIDR, the gateway of its pods. */
static bool is_own_gateway(const struct settings *s, const struct address *a)
{
	return same_address(a, &s->gateway4) || same_address(a, &s->gateway6);
}

static struct prefix *prefix_of(const struct address *a)
{
	struct prefix_key key = {.prefix_len = 128, .addr = *a};

	return prefixes.lookup(&key);
}

#endif
