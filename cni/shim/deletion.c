/* SPDX-License-Identifier: Apache-2.0 */
/* Queues a DEL that found no daemon: one file per attachment, durable before the runtime hears. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

/* The same words as cni/spec.py: what is no name of an attachment cannot have been attached. */
static bool is_container_id(const char *s)
{
	size_t length = strlen(s);

	return length && length <= 200 && isalnum((unsigned char)*s) &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") ==
		       length;
}

static bool is_ifname(const char *s)
{
	size_t length = strlen(s);

	return length && length <= 15 && strcmp(s, ".") && strcmp(s, "..") &&
	       strcspn(s, "/: \t\n\v\f\r") == length;
}

bool write_all(int fd, const void *data, size_t length)
{
	for (const char *at = data; length;) {
		ssize_t n = write(fd, at, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		at += n;
		length -= n;
	}
	return true;
}

static bool write_deletion(int folder, const struct request *request, const char *temporary,
			   const char *name)
{
	const struct header *header = &request->header;
	int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return false;
	if (!write_all(fd, header, sizeof(*header)) ||
	    !write_all(fd, request->environment, header->environment_bytes) ||
	    !write_all(fd, request->config, header->config_bytes) || fsync(fd) || close(fd))
		return false;
	return !renameat(folder, temporary, folder, name) && !fsync(folder);
}

enum queued queue_deletion(const struct request *request, const char *folder, const char *id,
			   const char *ifname)
{
	char name[256], temporary[280];
	int fd, error;

	if (!is_container_id(id) || !is_ifname(ifname))
		return NOT_A_NAME;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? QUEUED : NOT_QUEUED;
	snprintf(name, sizeof(name), "%s@%s", id, ifname);
	snprintf(temporary, sizeof(temporary), ".%s.%d", name, getpid());
	if (write_deletion(fd, request, temporary, name))
		return QUEUED;
	error = errno;
	unlinkat(fd, temporary, 0);
	errno = error;
	return NOT_QUEUED;
}
