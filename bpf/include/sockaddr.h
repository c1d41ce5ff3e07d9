/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The address in a socket hook's context, either family, as a struct address and back. An IPv6
 * socket may name an IPv4 peer by its mapped address: the same key.
 */
#ifndef WEFT_SOCKADDR_H
#define WEFT_SOCKADDR_H

#include "address.h"

struct peer {
	struct address addr;
	__be16 port;
};

/* Stores of 4 bytes: LLVM would join neighbours into what an old verifier refuses. */
#define CONTEXT_U32(field) (*(volatile __u32 *)&(field))

static void read_peer4(struct bpf_sock_addr *ctx, struct peer *peer)
{
	set_ipv4(&peer->addr, ctx->user_ip4);
	peer->port = ctx->user_port;
}

static void read_peer6(struct bpf_sock_addr *ctx, struct peer *peer)
{
	peer->addr.word[0] = CONTEXT_U32(ctx->user_ip6[0]);
	peer->addr.word[1] = CONTEXT_U32(ctx->user_ip6[1]);
	peer->addr.word[2] = CONTEXT_U32(ctx->user_ip6[2]);
	peer->addr.word[3] = CONTEXT_U32(ctx->user_ip6[3]);
	peer->port = ctx->user_port;
}

static void write_peer4(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	CONTEXT_U32(ctx->user_ip4) = peer->addr.word[3];
	CONTEXT_U32(ctx->user_port) = peer->port;
}

static void write_peer6(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	CONTEXT_U32(ctx->user_ip6[0]) = peer->addr.word[0];
	CONTEXT_U32(ctx->user_ip6[1]) = peer->addr.word[1];
	CONTEXT_U32(ctx->user_ip6[2]) = peer->addr.word[2];
	CONTEXT_U32(ctx->user_ip6[3]) = peer->addr.word[3];
	CONTEXT_U32(ctx->user_port) = peer->port;
}

#endif
