/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services at the socket: a shortcut of what from_pod does per packet, and the only way for the
 * node's own processes. TCP is translated for everyone, UDP for the node only: a pod's UDP socket
 * follows its backends packet by packet.
 *
 * These programs run in processes and may be interrupted by those on links: no scratch here.
 */
#include "kernel.h"
#include "maps.h"
#include "address.h"
#include "count.h"
#include "service.h"
#include "sockaddr.h"
#include "dial.h"

/*
 * A silent drop of the node's own. TCP would send its SYN again and again and give up: it does so
 * at once, since no program sees the node's packets before they leave. UDP gets what it gets of a
 * packet that netfilter drops, EPERM (net/netfilter/core.c, nf_hook_slow).
 */
static void give_up(struct bpf_sock_addr *ctx)
{
	if (ctx->protocol != IPPROTO_UDP)
		bpf_set_retval(-ETIMEDOUT);
}

/*
 * What the call returns: 1, go on; 0, refused as by a TCP RST or ICMP port unreachable (5.18 and
 * later), or dropped. Peers that are no Service's are not counted: every connect() would pay for
 * it.
 */
static int answer(struct bpf_sock_addr *ctx, enum dialled outcome)
{
	switch (outcome) {
	case DIALLED_OTHER:
		return 1;
	case DIALLED_SERVICE:
		count(REASON_STACK, DIRECTION_SOCKET, 0);
		return 1;
	case DIALLED_NOBODY:
	case DIALLED_UNSERVED:
		count(REASON_NO_BACKEND, DIRECTION_SOCKET, 0);
		bpf_set_retval(-ECONNREFUSED);
		return 0;
	case DIALLED_NOT_LOCAL:
		count(REASON_NO_LOCAL_BACKEND, DIRECTION_SOCKET, 0);
		give_up(ctx);
		return 0;
	case DIALLED_NO_SERVICE:
		count(REASON_NO_SERVICE, DIRECTION_SOCKET, 0);
		give_up(ctx);
		return 0;
	default:
		count(REASON_SOURCE_RANGE, DIRECTION_SOCKET, 0);
		give_up(ctx);
		return 0;
	}
}

int connect4(struct bpf_sock_addr *ctx)
{
	enum dialled outcome;
	struct peer peer;

	read_peer4(ctx, &peer);
	outcome = dial(ctx, &peer);
	if (outcome == DIALLED_SERVICE)
		write_peer4(ctx, &peer);
	return answer(ctx, outcome);
}

int connect6(struct bpf_sock_addr *ctx)
{
	enum dialled outcome;
	struct peer peer;

	read_peer6(ctx, &peer);
	outcome = dial(ctx, &peer);
	if (outcome == DIALLED_SERVICE)
		write_peer6(ctx, &peer);
	return answer(ctx, outcome);
}

/* Also for a mapped address on an IPv6 socket. */
int sendmsg4(struct bpf_sock_addr *ctx)
{
	enum dialled outcome;
	struct peer peer;

	read_peer4(ctx, &peer);
	outcome = dial_datagram(ctx, &peer);
	if (outcome == DIALLED_SERVICE)
		write_peer4(ctx, &peer);
	return answer(ctx, outcome);
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	enum dialled outcome;
	struct peer peer;

	read_peer6(ctx, &peer);
	outcome = dial_datagram(ctx, &peer);
	if (outcome == DIALLED_SERVICE)
		write_peer6(ctx, &peer);
	return answer(ctx, outcome);
}

int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	read_peer4(ctx, &peer);
	if (recall_vip(ctx, &peer))
		write_peer4(ctx, &peer);
	return 1;
}

int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	read_peer6(ctx, &peer);
	if (recall_vip(ctx, &peer))
		write_peer6(ctx, &peer);
	return 1;
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	read_peer4(ctx, &peer);
	if (recall_vip(ctx, &peer))
		write_peer4(ctx, &peer);
	return 1;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	read_peer6(ctx, &peer);
	if (recall_vip(ctx, &peer))
		write_peer6(ctx, &peer);
	return 1;
}
