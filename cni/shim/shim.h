/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of weft-cni share: one request, read once, and the ways to carry it. */
#ifndef WEFT_SHIM_H
#define WEFT_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_MAX (1 << 22)
#define ENVIRONMENT_MAX (1 << 16)
#define ANSWER_MAX (1 << 20)

/* The frame (cni/frame.py): this header, NUL-terminated NAME=value, the configuration. */
struct header {
	char magic[4];
	uint32_t version;
	uint32_t environment_bytes;
	uint32_t config_bytes;
};

struct answer {
	uint32_t exit_code;
	uint32_t bytes;
	char text[ANSWER_MAX];
};

struct request {
	struct header header;
	char environment[ENVIRONMENT_MAX];
	char config[CONFIG_MAX + 1];
	int descriptors[2]; /* the pod's namespace, a rtnetlink socket inside it */
	bool has_descriptors;
};

enum queued { QUEUED, NOT_A_NAME, NOT_QUEUED };

int64_t now_ms(void);
bool write_all(int fd, const void *data, size_t length);

/* A connection to the daemon, or -1. timeout_ms bounds a full backlog. */
int dial(const char *path, int timeout_ms);

/* True when the whole answer came before the deadline. */
bool exchange(int fd, const struct request *request, struct answer *answer, int64_t deadline_ms);

/*
 * Leaves a DEL for the daemon's next start, on disk when it returns QUEUED; NOT_QUEUED sets errno.
 * A node without the folder never had a daemon: nothing is attached there, so nothing is queued.
 */
enum queued queue_deletion(const struct request *request, const char *folder, const char *id,
			   const char *ifname);

#endif
