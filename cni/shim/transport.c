/* SPDX-License-Identifier: Apache-2.0 */
/* Carries one request to the daemon's socket and its answer back. Decides nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shim.h"

int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int dial(const char *path, int timeout_ms)
{
	struct timeval limit = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	/* connect() on a full backlog waits as long as a send would. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return fd;
	close(fd);
	return -1;
}

static void attach_descriptors(struct msghdr *message, char *control, size_t control_bytes,
			       const struct request *request)
{
	struct cmsghdr *rights = (struct cmsghdr *)control;

	message->msg_control = control;
	message->msg_controllen = control_bytes;
	rights->cmsg_len = CMSG_LEN(sizeof(request->descriptors));
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(rights), request->descriptors, sizeof(request->descriptors));
}

/* Drops `sent` bytes from the front of the parts that are left. */
static void advance(struct msghdr *message, size_t sent)
{
	while (message->msg_iovlen && sent >= message->msg_iov->iov_len) {
		sent -= message->msg_iov->iov_len;
		message->msg_iov++;
		message->msg_iovlen--;
	}
	if (sent) {
		message->msg_iov->iov_base = (char *)message->msg_iov->iov_base + sent;
		message->msg_iov->iov_len -= sent;
	}
}

static bool send_request(int fd, const struct request *request)
{
	struct iovec parts[] = {
		{ (void *)&request->header, sizeof(request->header) },
		{ (void *)request->environment, request->header.environment_bytes },
		{ (void *)request->config, request->header.config_bytes },
	};
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(request->descriptors))] = { 0 };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 3 };

	if (request->has_descriptors)
		attach_descriptors(&message, control, sizeof(control), request);
	while (message.msg_iovlen) {
		ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return false;
		if (n < 0)
			continue;
		/* Descriptors went with the first byte. */
		message.msg_control = NULL;
		message.msg_controllen = 0;
		advance(&message, n);
	}
	return true;
}

/* Reads exactly `length` bytes before the deadline. */
static bool receive(int fd, void *into, size_t length, int64_t deadline_ms)
{
	char *at = into;

	while (length) {
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		int64_t left_ms = deadline_ms - now_ms();
		ssize_t n;

		if (left_ms <= 0 || (poll(&ready, 1, left_ms) <= 0 && errno != EINTR))
			return false;
		n = recv(fd, at, length, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
			return false;
		if (n > 0) {
			at += n;
			length -= n;
		}
	}
	return true;
}

bool exchange(int fd, const struct request *request, struct answer *answer, int64_t deadline_ms)
{
	return send_request(fd, request) &&
	       receive(fd, answer, offsetof(struct answer, text), deadline_ms) &&
	       answer->bytes <= sizeof(answer->text) &&
	       receive(fd, answer->text, answer->bytes, deadline_ms);
}
