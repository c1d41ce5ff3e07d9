/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv6's extension headers: which there are and how long they are. */
#ifndef WEFT_EXTENSION_H
#define WEFT_EXTENSION_H

#include "kernel.h"

#define EXTENSIONS_MAX 6 /* RFC 8200 knows no limit; nobody sends more */

struct extension {
	u8 next;
	u8 length;
	__be16 fragment_offset; /* the fragment header's; a routing header's type and segments left */
	__be32 fragment_id;
};

static bool is_extension(u8 next)
{
	switch (next) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_AH:
	case IPPROTO_FRAGMENT:
		return true;
	}
	return false;
}

/* From an extension to the next header. */
static u32 extension_bytes(u8 next, const struct extension *e)
{
	if (next == IPPROTO_FRAGMENT)
		return 8;
	return next == IPPROTO_AH ? (e->length + 2) * 4 : (e->length + 1) * 8;
}

#endif
