/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The counters: one for every reason and direction. */
#ifndef WEFT_COUNT_H
#define WEFT_COUNT_H

#include "maps.h"

static void count(enum reason reason, u8 direction, u32 bytes)
{
	u32 index = (reason & (REASON_COUNT - 1)) * DIRECTION_COUNT +
		    (direction & (DIRECTION_COUNT - 1));
	struct counter *counter = counters.lookup(&index);

	if (!counter)
		return;
	counter->packets++;
	counter->bytes += bytes;
}

#endif
