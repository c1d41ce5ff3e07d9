/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is not known yet. A packet that would be dropped because a fragment's first or a peer's
 * labels are still under way waits on the hold link, a veth pair that gives it back a moment later
 * to the link it came by: there it is proven and judged as if it came for the first time.
 *
 * Only what no program has altered may wait. Each key waits once, for HOLD_MS, then not again for
 * HOLD_REST_S; a sender has HOLD_PACKETS in a second, long ones count for more: what is denied for
 * good costs little, and nobody fills the link for others. See docs/decisions/0021.
 */
#ifndef WEFT_HOLD_H
#define WEFT_HOLD_H

#include "count.h"
#include "packet.h"
#include "parse.h"
#include "tell.h"

/* After these milliseconds what is still unknown is dropped. */
#define HOLD_MS 250
#define HOLD_REST_S 5
#define HOLD_PACKETS 256
/* In so many bytes each begun: the link's bucket counts 2,000 for any packet, and its length. */
#define HOLD_PACKET_BYTES 2048
/* The hold link's queue splits what is longer into segments, or drops it. */
#define HOLD_BYTES 16384
/* The mark of a packet on the hold link. A pod cannot set one that leaves its namespace. */
#define HELD_MARK 0x68656c64

/* `since`: jiffies of a key's first packet; `ifindex`: the link that it came by; `entry`: of what a
 * client sent, the node that brought it through the overlay. */
struct held {
	u32 since;
	u32 ifindex;
	struct address entry;
};

struct hold_budget {
	u32 since;
	u32 packets; /* taken */
};

/* A fragment's key, or two ends with id and protocol 0. The programs' own, not in maps.h. */
BPF_TABLE("lru_hash", struct fragment_key, struct held, holds, 8192);
BPF_TABLE("lru_hash", struct address, struct hold_budget, hold_budgets, 2048);

/* First in every program that a held packet comes to: whether it does, and the mark away. */
static void take_up(struct __sk_buff *skb, struct packet *p)
{
	if (skb->mark != HELD_MARK)
		return;
	p->was_held = 1;
	*(volatile __u32 *)&skb->mark = 0;
}

static void hold_key(const struct packet *p, bool fragment, struct fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->src = p->tuple.src;
	key->dst = p->tuple.dst;
	if (!fragment)
		return;
	key->id = p->fragment_id;
	key->proto = p->fragment_proto;
}

/* A pod of another node whose labels did not arrive yet, or match nothing that any policy names. */
static bool is_unresolved(struct address *a)
{
	struct prefix *prefix = prefix_of(a);

	return prefix && (prefix->flags & PREFIX_REMOTE) && !peers.lookup(a);
}

static bool is_unknown_yet(struct packet *p, enum reason reason)
{
	if (reason == REASON_FRAGMENT_UNKNOWN)
		return true;
	if (reason != REASON_POLICY_INGRESS && reason != REASON_POLICY_EGRESS)
		return false;
	return is_unresolved(p->direction == DIRECTION_FROM_POD ? &p->tuple.dst : &p->tuple.src);
}

/* Whether `owner` may have one more packet, of so many bytes, waiting. */
static bool take_budget(const struct packet *p, const struct settings *s, struct address *owner,
			u32 bytes)
{
	u32 packets = 1 + bytes / HOLD_PACKET_BYTES;
	struct hold_budget *budget = hold_budgets.lookup(owner), fresh = {};

	if (budget && p->now - budget->since <= s->hz) {
		budget->packets += packets;
		return budget->packets <= HOLD_PACKETS;
	}
	fresh.since = p->now;
	fresh.packets = packets;
	return !hold_budgets.update(owner, &fresh);
}

/* The node that a client's packet came through the overlay from, else NULL. */
static struct address *entry_of(struct packet *p)
{
	return p->direction == DIRECTION_FROM_OVERLAY && !is_unset(&p->vip) ? &p->vip : 0;
}

/* Begins the time of a key, told once so that the daemon can ask whose the other end is. */
static bool begin_hold(struct __sk_buff *skb, struct packet *p, struct fragment_key *key,
		       enum reason reason)
{
	struct held held = {.since = p->now, .ifindex = skb->ifindex};
	struct address *entry = entry_of(p);

	if (entry)
		held.entry = *entry;
	if (holds.update(key, &held))
		return false;
	if (reason != REASON_FRAGMENT_UNKNOWN)
		tell(skb, p, REASON_HELD);
	return true;
}

/*
 * Whether a packet that would be dropped for `reason` waits instead; then it is marked for it.
 * owner: of the budget that it takes from.
 */
static bool hold(struct __sk_buff *skb, struct packet *p, enum reason reason, struct address *owner)
{
	struct settings *s = settings_row();
	struct fragment_key key;
	struct held *held;
	u32 age;

	if (!s || skb->len > HOLD_BYTES || !is_unknown_yet(p, reason))
		return false;
	/* The hold link's frames have Ethernet's header, those of a tun do not. */
	if (!p->l3)
		return false;
	hold_key(p, reason == REASON_FRAGMENT_UNKNOWN, &key);
	held = holds.lookup(&key);
	age = held ? p->now - held->since : 0;
	if (held && age <= HOLD_REST_S * s->hz && age > s->hz * HOLD_MS / 1000 + 1)
		return false;
	if (!p->was_held && !take_budget(p, s, owner, skb->len))
		return false;
	if ((!held || age > HOLD_REST_S * s->hz) && !begin_hold(skb, p, &key, reason))
		return false;
	*(volatile __u32 *)&skb->mark = HELD_MARK;
	return true;
}

/* Sources outside are nobody's word: all of them have one budget. */
static bool hold_stranger(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	struct address strangers = {};

	return s->hold_to_pod && hold(skb, p, REASON_FRAGMENT_UNKNOWN, &strangers);
}

/*
 * A later fragment from outside whose first is not here: the node's, a masqueraded pod's, or for a
 * Service. It goes on to the stack, and a copy waits for the other cases.
 */
static void hold_copy(struct __sk_buff *skb, struct packet *p, const struct settings *s)
{
	u32 mark = skb->mark;

	if (!hold_stranger(skb, p, s))
		return;
	if (!bpf_clone_redirect(skb, s->hold_to_pod, 0))
		count(REASON_HELD, p->direction, skb->len);
	*(volatile __u32 *)&skb->mark = mark;
}

/* What waits for a fragment's first, or for one of its ends, came so; NULL: forgotten. */
static struct held *held_as(struct packet *p)
{
	struct fragment_key key;
	struct held *held;

	hold_key(p, p->fragment == FRAGMENT_LATER, &key);
	held = holds.lookup(&key);
	if (held || p->fragment != FRAGMENT_LATER)
		return held;
	hold_key(p, false, &key);
	return holds.lookup(&key);
}

/* Out of the hold link, back to a link: received there for the second time. */
static enum reason once_more(struct __sk_buff *skb, struct packet *p, u32 ifindex)
{
	*(volatile __u32 *)&skb->mark = HELD_MARK;
	p->target = ifindex;
	p->again = 1;
	return REASON_HELD;
}

/* Nothing but held packets comes out of the hold link; what the kernel says there is nobody's. */
static enum reason parse_held(struct __sk_buff *skb, struct packet *p)
{
	take_up(skb, p);
	p->is_copy = !p->was_held;
	return p->was_held ? parse(skb, p) : REASON_PROTOCOL_UNKNOWN;
}

#endif
