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
 * What the call returns: 1, go on; 0, refused as by a TCP RST or ICMP port unreachable (5.18 and
 * later). Peers that are no Service's are not counted: every connect() would pay for it.
 */
static int answer(enum dialled outcome)
{
	if (outcome == DIALLED_SERVICE)
		count(REASON_STACK, DIRECTION_SOCKET, 0);
	if (outcome != DIALLED_NOBODY)
		return 1;
	count(REASON_NO_BACKEND, DIRECTION_SOCKET, 0);
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

int connect4(struct bpf_sock_addr *ctx)
{
	enum dialled outcome;
	struct peer peer;

	read_peer4(ctx, &peer);
	outcome = dial(ctx, &peer);
	if (outcome == DIALLED_SERVICE)
		write_peer4(ctx, &peer);
	return answer(outcome);
}

int connect6(struct bpf_sock_addr *ctx)
{
	enum dialled outcome;
	struct peer peer;

	read_peer6(ctx, &peer);
	outcome = dial(ctx, &peer);
	if (outcome == DIALLED_SERVICE)
		write_peer6(ctx, &peer);
	return answer(outcome);
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
	return answer(outcome);
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	enum dialled outcome;
	struct peer peer;

	read_peer6(ctx, &peer);
	outcome = dial_datagram(ctx, &peer);
	if (outcome == DIALLED_SERVICE)
		write_peer6(ctx, &peer);
	return answer(outcome);
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
