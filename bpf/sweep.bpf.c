/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Rows that no packet will find any more. Attached nowhere: the daemon (proxy/apply/sweep.py) lists a
 * table and runs this on keys that look old, up to SWEEP_KEYS one after another in place of a packet.
 *
 * Whether a row is dead is said here, by the limits that the other programs go by, and it is
 * deleted in the same breath: a list that user space compares is milliseconds old, in which a client
 * may have called from the same port again. It returns how many rows it deleted.
 *
 * skb->cb[0]: the seconds that a closed connection is kept; cb[1]: enum swept_table. No scratch: a
 * packet may interrupt.
 */
#include "kernel.h"
#include "maps.h"
#include "address.h"
#include "packet.h"
#include "parse.h"
#include "flow.h"
#include "service.h"

#define SWEEP_KEYS 64

enum swept_table {
	SWEEP_FLOWS = 1,
	SWEEP_TRANSLATIONS = 2,
	SWEEP_SNAT = 3,
};

static u32 limit_s(const struct __sk_buff *skb, u8 proto, u8 flags)
{
	return flags & FLOW_CLOSING ? skb->cb[0] : idle_limit_s(proto, flags);
}

static bool is_old(const struct settings *s, u32 seen, u32 limit)
{
	return is_older((u32)bpf_jiffies64(), seen, limit, s);
}

/* The mark counts: what the verifier knows of a number it would follow through every turn. */
static void count_deleted(struct __sk_buff *skb)
{
	*(volatile __u32 *)&skb->mark = skb->mark + 1;
}

/* A dead flow's translation: the choice that its client was given, if it still is that one. */
static void forget_choice(struct __sk_buff *skb, const struct tuple *key, const struct flow *flow)
{
	bool turned = flow->flags & FLOW_INITIATOR_IS_DST;
	const struct address *backend = turned ? &key->src : &key->dst;
	const struct address *client = turned ? &key->dst : &key->src;
	__be16 sport = turned ? key->dport : key->sport, port = turned ? key->sport : key->dport;
	struct translation *chosen;
	struct tuple dialled = {.proto = key->proto};

	/* Of a hairpin the flow has the client's mask: it is the backend. */
	dialled.src = flow->path == PATH_HAIRPIN ? *backend : *client;
	dialled.sport = flow->client_port ? flow->client_port : sport;
	dialled.dst = flow->vip;
	dialled.dport = flow->vip_port;
	chosen = translations.lookup(&dialled);
	if (!chosen || chosen->port != port || !same_address(&chosen->addr, backend) ||
	    (chosen->client_port ? chosen->client_port : dialled.sport) != sport)
		return;
	translations.delete(&dialled);
	count_deleted(skb);
}

static void sweep_flow(struct __sk_buff *skb, const struct settings *s, struct tuple *key)
{
	struct flow *flow = flows.lookup(key);

	if (!flow || !is_old(s, flow->seen, limit_s(skb, key->proto, flow->flags)))
		return;
	if (flow->flags & FLOW_TRANSLATED)
		forget_choice(skb, key, flow);
	flows.delete(key);
	count_deleted(skb);
}

/* Datagrams'; a connection's goes with its flow, or is one that LRU has parted from it. */
static void sweep_translation(struct __sk_buff *skb, const struct settings *s, struct tuple *key)
{
	struct translation *known = translations.lookup(key);
	u32 limit = key->proto == IPPROTO_TCP ? TRANSLATION_TCP_S : TRANSLATION_UDP_S;

	if (!known || !is_old(s, known->seen, limit))
		return;
	translations.delete(key);
	count_deleted(skb);
}

static bool is_to(const struct snat *row, const struct address *addr, __be16 port)
{
	return row && row->port == port && same_address(&row->addr, addr);
}

/* The two rows of a flow name each other; the arriving one says when both are dead. */
static void sweep_mask(struct __sk_buff *skb, const struct settings *s, struct tuple *key)
{
	struct snat *row = snat.lookup(key), *other;
	struct tuple partner = {.proto = key->proto};
	bool echo = key->proto == IPPROTO_ICMP || key->proto == IPPROTO_ICMPV6;
	u32 limit;

	if (!row)
		return;
	/* As a leaving row's: what arrives for it. */
	partner.src = key->dst;
	partner.dst = row->addr;
	partner.sport = echo ? row->port : key->dport;
	partner.dport = row->port;
	if (is_to(snat.lookup(&partner), &key->src, key->sport))
		return;
	/* As an arriving row's: what leaves for it. */
	partner.src = row->addr;
	partner.dst = key->src;
	partner.sport = row->port;
	partner.dport = echo ? row->port : key->sport;
	other = snat.lookup(&partner);
	limit = limit_s(skb, key->proto, row->flags);
	/* Parted by LRU: a leaving row that is alone makes its reservation again, so it is kept longest. */
	if (!is_to(other, &key->dst, key->dport) && !is_to(row, &key->dst, key->dport))
		limit = key->proto == IPPROTO_TCP ? IDLE_TCP_ESTABLISHED_S : IDLE_REPLIED_S;
	if (!is_old(s, row->seen, limit))
		return;
	if (is_to(other, &key->dst, key->dport)) {
		snat.delete(&partner);
		count_deleted(skb);
	}
	snat.delete(key);
	count_deleted(skb);
}

static void sweep_key(struct __sk_buff *skb, const struct settings *s, struct tuple *key)
{
	switch (skb->cb[1]) {
	case SWEEP_FLOWS:
		sweep_flow(skb, s, key);
		break;
	case SWEEP_TRANSLATIONS:
		sweep_translation(skb, s, key);
		break;
	case SWEEP_SNAT:
		sweep_mask(skb, s, key);
	}
}

int sweep(struct __sk_buff *skb)
{
	struct settings *s = settings_row();
	struct tuple key;
	u32 i;

	*(volatile __u32 *)&skb->mark = 0;
	if (!s || !s->hz)
		return 0;
	for (i = 0; i < SWEEP_KEYS; i++) {
		if (bpf_skb_load_bytes(skb, i * sizeof(key), &key, sizeof(key)))
			break;
		sweep_key(skb, s, &key);
	}
	return skb->mark;
}
