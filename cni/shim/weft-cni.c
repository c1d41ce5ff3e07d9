/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weft-cni: what a runtime executes. Carries its environment and stdin to the node daemon's unix
 * socket, with the pod's network namespace and a rtnetlink socket opened inside it, and prints the
 * answer. Holds no address, no token and no decision but these: VERSION needs nobody, a DEL that
 * finds no daemon is queued on disk, everything else that finds none is told to try again.
 *
 * Environment: WEFT_CNI_SOCKET (default below), WEFT_CNI_DELETIONS (the folder of queued DELs),
 * WEFT_CNI_WAIT_MS (how long an ADD waits for a daemon to listen). The frame: cni/frame.py.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "shim.h"

#define SOCKET "/run/weft/cni.sock"
#define DELETIONS "/var/lib/weft/cni/deletions"
#define VERSIONS "\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\""
#define RETRY_MS 20

enum code { ENVIRONMENT = 4, IO_FAILURE = 5, TRY_AGAIN = 11, UNAVAILABLE = 50 };

/* How long a verb waits for somebody to listen, then for the answer, and what it says otherwise. */
struct verb {
	const char *name;
	int connect_ms;
	int answer_ms;
	enum code code;
	bool in_namespace;
};

static struct verb verbs[] = {
	{ "ADD", 30000, 100000, TRY_AGAIN, true },  { "DEL", 0, 20000, TRY_AGAIN, false },
	{ "CHECK", 5000, 20000, TRY_AGAIN, true },  { "GC", 5000, 25000, TRY_AGAIN, false },
	{ "STATUS", 0, 1000, UNAVAILABLE, false },
};

static struct request request;
static struct answer answer;

extern char **environ;

static const char *env(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value && *value ? value : otherwise;
}

/* The configuration's own version, so that an old libcni reads our error; a scan, not a parser. */
static void print_version(FILE *out)
{
	const char *at = strstr(request.config, "\"cniVersion\"");
	size_t length = 0;

	if (at) {
		at += strlen("\"cniVersion\"");
		at += strspn(at, " \t\r\n:\"");
		length = strspn(at, "0123456789.");
	}
	fprintf(out, "%.*s", length ? (int)length : 5, length ? at : "1.0.0");
}

static void print_escaped(FILE *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', out);
		fputc(isprint((unsigned char)*s) ? *s : '?', out);
	}
}

static _Noreturn void fail(enum code code, const char *msg, const char *details)
{
	printf("{\"cniVersion\":\"");
	print_version(stdout);
	printf("\",\"code\":%d,\"msg\":\"", code);
	print_escaped(stdout, msg);
	printf("\",\"details\":\"");
	print_escaped(stdout, details);
	printf("\"}\n");
	exit(fflush(stdout) ? 2 : 1);
}

static void read_config(void)
{
	size_t length = 0;
	ssize_t n;

	while ((n = read(STDIN_FILENO, request.config + length, CONFIG_MAX + 1 - length)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail(IO_FAILURE, "cannot read the configuration from stdin", strerror(errno));
		length += n;
		if (length > CONFIG_MAX)
			fail(IO_FAILURE, "the configuration on stdin is longer than 4 MiB", "");
	}
	request.header.config_bytes = length;
	request.config[length] = 0;
}

static void add_environment(const char *entry)
{
	size_t length = strlen(entry) + 1;

	if (request.header.environment_bytes + length > ENVIRONMENT_MAX)
		fail(ENVIRONMENT, "the CNI_ environment is longer than 64 KiB", "");
	memcpy(request.environment + request.header.environment_bytes, entry, length);
	request.header.environment_bytes += length;
}

static void collect_environment(void)
{
	for (char **entry = environ; *entry; entry++)
		if (!strncmp(*entry, "CNI_", 4))
			add_environment(*entry);
}

/*
 * Reads first: writing disable_ipv6 spins until it gets the RTNL lock, which thirty ADDs at once
 * fight for. No IPv6 here, or /proc/sys read-only: the daemon's messages will say so.
 */
static void set_sysctl(const char *path, char value)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char present;

	if (fd < 0)
		return;
	if (read(fd, &present, 1) == 1 && present != value)
		(void)!pwrite(fd, &value, 1, 0);
	close(fd);
}

/*
 * /proc/sys/net is that of the reader's namespace, and the daemon never enters a pod's: what the
 * pod's interface inherits is set before it exists.
 */
static void prepare_namespace(void)
{
	set_sysctl("/proc/sys/net/ipv6/conf/default/accept_dad", '0');
	set_sysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", '0');
	set_sysctl("/proc/sys/net/ipv6/conf/lo/disable_ipv6", '0');
}

static bool same_file(int a, int b)
{
	struct stat one, other;

	return !fstat(a, &one) && !fstat(b, &other) && one.st_ino == other.st_ino &&
	       one.st_dev == other.st_dev;
}

/* Returns 0 or errno. A path may be planted: O_NONBLOCK for a pipe, nsfs for anything else. */
static int open_namespace(const char *path)
{
	int pod = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct statfs fs;
	int route, error;

	if (pod < 0 || own < 0)
		return errno;
	if (fstatfs(pod, &fs))
		return errno;
	if (fs.f_type != NSFS_MAGIC)
		return EINVAL;
	if (setns(pod, CLONE_NEWNET))
		return errno;
	if (!same_file(pod, own))
		prepare_namespace();
	route = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	error = route < 0 ? errno : 0;
	if (setns(own, CLONE_NEWNET))
		return errno;
	close(own);
	if (error)
		return error;
	request.descriptors[0] = pod;
	request.descriptors[1] = route;
	request.has_descriptors = true;
	return 0;
}

/*
 * True with an answer. A daemon that dies before it answers has undone the verb when it is back,
 * so what was asked is asked again while the verb may still wait for a listener.
 */
static bool ask(const struct verb *verb)
{
	const char *path = env("WEFT_CNI_SOCKET", SOCKET);
	int64_t start_ms = now_ms(), end_ms = start_ms + verb->connect_ms;

	for (;;) {
		int fd = dial(path, verb->answer_ms);
		bool answered = fd >= 0 && exchange(fd, &request, &answer, start_ms + verb->answer_ms);

		if (fd >= 0)
			close(fd);
		if (answered || now_ms() >= end_ms)
			return answered;
		poll(NULL, 0, RETRY_MS);
	}
}

static void delete_later(void)
{
	const char *folder = env("WEFT_CNI_DELETIONS", DELETIONS);

	switch (queue_deletion(&request, folder, env("CNI_CONTAINERID", ""), env("CNI_IFNAME", ""))) {
	case QUEUED:
		return;
	case NOT_A_NAME:
		fail(ENVIRONMENT, "CNI_CONTAINERID or CNI_IFNAME is missing or invalid", "");
	case NOT_QUEUED:
		fail(TRY_AGAIN, "no daemon answers and the DEL cannot be queued", strerror(errno));
	}
}

static int run(const struct verb *verb)
{
	char entry[64];

	request.header = (struct header){ .magic = "WEFT", .version = 1 };
	read_config();
	collect_environment();
	if (verb->in_namespace && getenv("CNI_NETNS")) {
		snprintf(entry, sizeof(entry), "WEFT_NETNS_ERRNO=%d",
			 open_namespace(getenv("CNI_NETNS")));
		add_environment(entry);
	}
	if (ask(verb))
		return write_all(STDOUT_FILENO, answer.text, answer.bytes) ? (int)answer.exit_code :
									     2;
	if (strcmp(verb->name, "DEL"))
		fail(verb->code, "weftd does not answer", env("WEFT_CNI_SOCKET", SOCKET));
	delete_later();
	return 0;
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND");

	if (!command || !*command) {
		fprintf(stderr, "weft-cni carries CNI calls to weftd\n"
				"CNI protocol versions supported: " VERSIONS "\n");
		return 0;
	}
	if (!strcmp(command, "VERSION")) {
		printf("{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[" VERSIONS "]}\n");
		return fflush(stdout) ? 2 : 0;
	}
	verbs[0].connect_ms = atoi(env("WEFT_CNI_WAIT_MS", "30000"));
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (!strcmp(command, verbs[i].name))
			return run(&verbs[i]);
	snprintf(answer.text, sizeof(answer.text), "unknown CNI_COMMAND: %s", command);
	fail(ENVIRONMENT, answer.text, "");
}
