/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What becomes of a peer that a socket dials, whatever its family: translated, refused or left
 * alone; and what the socket is told of the peer it talks to.
 */
#ifndef WEFT_DIAL_H
#define WEFT_DIAL_H

#include "count.h"
#include "service.h"
#include "sockaddr.h"

enum dialled {
	DIALLED_OTHER = 0, /* no Service's */
	DIALLED_SERVICE,   /* peer is the backend now */
	DIALLED_NOBODY,
	DIALLED_UNSERVED, /* a ClusterIP's port that nothing is behind */
	DIALLED_NOT_LOCAL, /* policy Local: no endpoint on this node */
	DIALLED_OUTSIDE_RANGE,
	DIALLED_NO_SERVICE, /* a Service range's address that no Service has */
};

/* BCC declares it to return 32 bits. */
static u64 (*socket_cookie)(void *ctx) = (void *)BPF_FUNC_get_socket_cookie;

static bool is_of_node(struct bpf_sock_addr *ctx, const struct settings *s)
{
	return bpf_get_netns_cookie(ctx) == s->host_netns;
}

/* Of a pod whose sockets dial as they are: from_pod translates what they send. */
static bool is_spared(struct bpf_sock_addr *ctx, const struct settings *s)
{
	u64 netns = bpf_get_netns_cookie(ctx);
	struct sandbox *sandbox;

	if (netns == s->host_netns)
		return false;
	if (s->flags & SETTING_NODE_SOCKETS)
		return true;
	sandbox = sandboxes.lookup(&netns);
	return sandbox && (sandbox->flags & SANDBOX_NO_SOCKETS);
}

/* The protocol that is translated for this socket; 0: none. Multipath TCP is TCP on the wire. */
static u8 translated_protocol(struct bpf_sock_addr *ctx, const struct settings *s)
{
	if (ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_MPTCP)
		return IPPROTO_TCP;
	return ctx->protocol == IPPROTO_UDP && is_of_node(ctx, s) ? IPPROTO_UDP : 0;
}

/* So that the socket reads the VIP in getpeername() and, for UDP, as the sender of answers. */
static void remember_vip(u64 cookie, const struct peer *backend, const struct peer *vip)
{
	struct socket_key key = {.cookie = cookie, .addr = backend->addr, .port = backend->port};
	struct socket_vip value = {.addr = vip->addr, .port = vip->port};
	struct socket_vip *known = sockets.lookup(&key);

	if (!known || known->port != vip->port || !same_address(&known->addr, &vip->addr))
		sockets.update(&key, &value);
}

/* The socket dials `peer` itself now: what it dialled before is not what it talks to. */
static void forget_vip(u64 cookie, const struct peer *peer)
{
	struct socket_key key = {.cookie = cookie, .addr = peer->addr, .port = peer->port};

	sockets.delete(&key);
}

static bool recall_vip(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct socket_key key = {.cookie = socket_cookie(ctx)};
	struct socket_vip *known;

	key.addr = peer->addr;
	key.port = peer->port;
	known = sockets.lookup(&key);
	if (!known)
		return false;
	peer->addr = known->addr;
	peer->port = known->port;
	return true;
}

/*
 * Whether a pod's packets say what becomes of them: who sends them counts, they are to be dropped
 * without a word, or masked.
 */
static bool is_for_packets(const struct settings *s, const struct frontend *frontend)
{
	return (frontend->flags & (FRONTEND_RANGES | FRONTEND_ELSEWHERE | FRONTEND_LOOPBACK)) ||
	       frontend->affinity_s || masks_clients(s, frontend, true);
}

/* DIALLED_SERVICE: there may be a slot. Most of what is dialled is no Service's: asked last. */
static enum dialled reach_frontend(struct bpf_sock_addr *ctx, const struct settings *s,
				   const struct frontend *frontend)
{
	if (!is_of_node(ctx, s))
		return is_spared(ctx, s) || is_for_packets(s, frontend) ? DIALLED_OTHER
								     : DIALLED_SERVICE;
	if ((frontend->flags & FRONTEND_RANGES) && !(frontend->flags & FRONTEND_NODE_IN_RANGES))
		return DIALLED_OUTSIDE_RANGE;
	return DIALLED_SERVICE;
}

/* Only the node's own sockets come here with affinity: its InternalIP is their client. */
static enum dialled choose_for_socket(const struct settings *s, const struct frontend *frontend,
				      const struct peer *peer, struct translation *chosen)
{
	const struct address *client = is_mapped(&peer->addr) ? &s->node4 : &s->node6;
	struct translation *kept;
	struct slot *slot;

	chosen->seen = bpf_jiffies64();
	kept = kept_choice(s, frontend, client, chosen->seen, chosen_inside(frontend));
	if (kept) {
		chosen->backend = kept->backend;
		chosen->addr = kept->addr;
		chosen->port = kept->port;
	} else {
		slot = random_slot(frontend, is_local_inside(frontend));
		if (!slot)
			return frontend->flags & FRONTEND_ELSEWHERE ? DIALLED_NOT_LOCAL
								    : DIALLED_NOBODY;
		chosen->backend = slot->backend;
		chosen->addr = slot->addr;
		chosen->port = slot->port;
	}
	if (frontend->affinity_s)
		keep_choice(frontend->service, client, chosen);
	return DIALLED_SERVICE;
}

/* Where no frontend is. A pod's packets say the rest, of the node's sockets nothing else would. */
static enum dialled reach_whole(struct bpf_sock_addr *ctx, const struct settings *s,
				const struct address *addr)
{
	struct frontend *whole = frontend_at(addr, 0, 0);
	struct prefix *prefix;

	if (whole && (whole->flags & (FRONTEND_OPEN | FRONTEND_OTHER_PROXY)))
		return DIALLED_OTHER;
	if (whole)
		return is_spared(ctx, s) ? DIALLED_OTHER : DIALLED_UNSERVED;
	if (!is_of_node(ctx, s))
		return DIALLED_OTHER;
	prefix = prefix_of(addr);
	return prefix && (prefix->flags & PREFIX_SERVICE) ? DIALLED_NO_SERVICE : DIALLED_OTHER;
}

/* The endpoint for a new flow to `peer`, if that is a Service's. */
static enum dialled pick(struct bpf_sock_addr *ctx, const struct settings *s,
			 const struct peer *peer, u8 proto, struct translation *chosen)
{
	struct frontend *frontend = frontend_at(&peer->addr, peer->port, proto);
	enum dialled outcome;

	if (!frontend)
		return reach_whole(ctx, s, &peer->addr);
	outcome = reach_frontend(ctx, s, frontend);
	if (outcome != DIALLED_SERVICE)
		return outcome;
	return choose_for_socket(s, frontend, peer, chosen);
}

/* connect(): one choice for the connection. */
static enum dialled dial(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct settings *s = settings_row();
	u8 proto = s ? translated_protocol(ctx, s) : 0;
	struct translation chosen = {};
	struct peer vip = *peer;
	enum dialled outcome;

	if (!proto)
		return DIALLED_OTHER;
	outcome = pick(ctx, s, peer, proto, &chosen);
	/* ping, traceroute and getaddrinfo() ask for a route so; what they send is refused. */
	if (outcome == DIALLED_UNSERVED && proto == IPPROTO_UDP)
		outcome = DIALLED_OTHER;
	/* A UDP socket may have sent to the VIP before; a TCP socket has one peer in its life. */
	if (outcome == DIALLED_OTHER && proto == IPPROTO_UDP)
		forget_vip(socket_cookie(ctx), peer);
	if (outcome != DIALLED_SERVICE)
		return outcome;
	peer->addr = chosen.addr;
	peer->port = chosen.port;
	remember_vip(socket_cookie(ctx), peer, &vip);
	return DIALLED_SERVICE;
}

/*
 * A translation's key for datagrams of one socket: its cookie stands for the source, below an
 * address that no packet may come from (all of ff00::/8 is multicast).
 */
static void datagram_key(struct tuple *key, u64 cookie, const struct peer *vip)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->src.word[0] = BE32(0xff000000);
	key->src.word[2] = cookie >> 32;
	key->src.word[3] = (u32)cookie;
	key->dst = vip->addr;
	key->dport = vip->port;
	key->proto = IPPROTO_UDP;
}

static struct translation *known_datagram(const struct settings *s, struct tuple *key, u32 now)
{
	struct translation *known = translations.lookup(key);

	if (!known || is_older(now, known->seen, TRANSLATION_UDP_S, s) ||
	    !has_backend(known->backend))
		return 0;
	if (now - known->seen >= s->hz)
		known->seen = now;
	return known;
}

static enum dialled choose_datagram(struct bpf_sock_addr *ctx, const struct settings *s,
				    struct peer *peer, struct tuple *key)
{
	struct translation chosen = {};
	enum dialled outcome = pick(ctx, s, peer, IPPROTO_UDP, &chosen);

	if (outcome != DIALLED_SERVICE)
		return outcome;
	peer->addr = chosen.addr;
	peer->port = chosen.port;
	translations.update(key, &chosen);
	return DIALLED_SERVICE;
}

/* sendto() of the node: datagrams of one socket to one VIP keep their backend while it serves. */
static enum dialled dial_datagram(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct settings *s = settings_row();
	struct peer vip = *peer;
	struct translation *known;
	enum dialled outcome;
	struct tuple key;
	u32 now = bpf_jiffies64();
	u64 cookie;

	if (!s || !is_of_node(ctx, s))
		return DIALLED_OTHER;
	cookie = socket_cookie(ctx);
	datagram_key(&key, cookie, &vip);
	known = known_datagram(s, &key, now);
	if (known) {
		peer->addr = known->addr;
		peer->port = known->port;
	} else {
		outcome = choose_datagram(ctx, s, peer, &key);
		if (outcome != DIALLED_SERVICE)
			return outcome;
	}
	remember_vip(cookie, peer, &vip);
	return DIALLED_SERVICE;
}

#endif
