/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Clients of Services that are masqueraded as kube-proxy does (PATH_MASKED). Flows are kept under
 * the client's own address, and policy here judges it by that: nobody passes for the node. The
 * stack carries them; the last program before the backend puts this node's address there, the
 * first one that meets the answer takes it off again.
 */
#ifndef WEFT_MASK_H
#define WEFT_MASK_H

#include "deliver.h"
#include "masquerade.h"
#include "policy.h"
#include "translate.h"

/* A masked flow's packet to its backend, or an error about what that answered; p->tuple is as the
 * flow has it. */
static enum reason put_mask(struct __sk_buff *skb, struct packet *p, const struct settings *s,
			    const struct address *addr)
{
	enum reason reason;

	if (p->kind == KIND_ICMP_ERROR) {
		p->tuple = p->wire;
		reason = masquerade_error(skb, p, s, 0);
	} else {
		reason = masquerade(skb, p, s, addr);
	}
	return reason == REASON_MASQUERADED || reason == REASON_NOT_OURS ? REASON_NONE : reason;
}

/*
 * What a backend here answers a masked client goes to the node's address. REASON_RESTORED: the
 * client's is put there, and the packet comes by its link once more, as if it had been sent so. All
 * that a pod's packet may come to would have to be verified twice otherwise.
 */
static enum reason take_mask_off(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	struct address mask;
	enum reason reason;

	mask_address(s, p->family, &mask);
	if (!same_address(&p->tuple.dst, &mask))
		return REASON_NOT_OURS;
	reason = p->kind == KIND_ICMP_ERROR ? restore_error(skb, p) : restore(skb, p, s);
	if (reason == REASON_RESTORED) {
		p->target = skb->ifindex;
		p->again = 1;
	}
	return reason;
}

#endif
