/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One port of a client may dial two addresses that lead to one backend: two VIPs, or a VIP and the
 * backend itself. To that one they would be one connection, and the second break the first. The
 * second is given another source port, as nf_nat would (net/netfilter/nf_nat_core.c,
 * get_unique_tuple); flow.client_port says whom its answers are for.
 */
#ifndef WEFT_APART_H
#define WEFT_APART_H

#include "flow.h"

/* So many at random: of 64,512 ports all but every second would have to be taken. */
#define APART_PROBES 16

/*
 * Whether a flow between the ends of p->tuple goes on that is not the one which p starts again.
 * One that another node brought may have moved here: datagrams, and a SYN that has no answer yet.
 */
static bool is_taken(struct packet *p, const struct settings *s)
{
	struct flow *flow = flows.lookup(flow_key(p));

	if (!flow || (flow->flags & FLOW_CLOSING) ||
	    is_idle(p, s, flow->seen, idle_limit_s(p->tuple.proto, flow->flags)))
		return false;
	if (flow->path == PATH_ENTRY)
		return p->tuple.proto == IPPROTO_TCP && (flow->flags & FLOW_REPLIED);
	return is_reply(p, flow) || !(flow->flags & FLOW_TRANSLATED) ||
	       flow->client_port != p->client_port || flow->vip_port != p->vip_port ||
	       !same_address(&flow->vip, &p->vip);
}

/* A source port for the new flow p->tuple that no other between these ends has. */
static enum reason set_apart(struct packet *p, const struct settings *s)
{
	__be16 own = p->tuple.sport;
	/* Some servers (NFS) ask for a privileged port: one of these becomes another. */
	u32 low = BE16(own) < 1024 ? 512 : 1024, range = low == 512 ? 512 : 65536 - 1024, i;

	if (!is_taken(p, s))
		return REASON_NONE;
	p->client_port = own;
	for (i = 0; i < APART_PROBES; i++) {
		/* Else LLVM falls through into the loop's head: a back-edge to 6.1's verifier. */
		asm volatile("" : "+r"(i));
		p->tuple.sport = BE16((u16)(low + bpf_get_prandom_u32() % range));
		if (!is_taken(p, s))
			return REASON_NONE;
	}
	return REASON_SNAT_EXHAUSTED;
}

#endif
