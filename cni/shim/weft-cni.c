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
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define SOCKET "/run/weft/cni.sock"
#define DELETIONS "/var/lib/weft/cni/deletions"
#define VERSIONS "\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\""
#define CONFIG_MAX (1 << 22)
#define ENVIRONMENT_MAX (1 << 16)
#define ANSWER_MAX (1 << 20)
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

struct header {
	char magic[4];
	uint32_t version;
	uint32_t environment_bytes;
	uint32_t config_bytes;
};

struct answer {
	uint32_t exit_code;
	uint32_t bytes;
};

extern char **environ;
static struct header header = { .magic = "WEFT", .version = 1 };
static char environment[ENVIRONMENT_MAX];
static char config[CONFIG_MAX + 1];
static char text[ANSWER_MAX];
static int descriptors[2];
static int descriptor_count;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static const char *env(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value && *value ? value : otherwise;
}

/* The configuration's own version, so that an old libcni reads our error; a scan, not a parser. */
static void print_version(FILE *out)
{
	const char *at = strstr(config, "\"cniVersion\"");
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

	while ((n = read(STDIN_FILENO, config + length, CONFIG_MAX + 1 - length)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail(IO_FAILURE, "cannot read the configuration from stdin", strerror(errno));
		length += n;
		if (length > CONFIG_MAX)
			fail(IO_FAILURE, "the configuration on stdin is longer than 4 MiB", "");
	}
	header.config_bytes = length;
	config[length] = 0;
}

static void add_environment(const char *entry)
{
	size_t length = strlen(entry) + 1;

	if (header.environment_bytes + length > ENVIRONMENT_MAX)
		fail(ENVIRONMENT, "the CNI_ environment is longer than 64 KiB", "");
	memcpy(environment + header.environment_bytes, entry, length);
	header.environment_bytes += length;
}

static void collect_environment(void)
{
	for (char **entry = environ; *entry; entry++)
		if (!strncmp(*entry, "CNI_", 4))
			add_environment(*entry);
}

static void set_sysctl(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0) {
		/* No IPv6 here, or /proc/sys is read-only: the daemon's messages then say so. */
	}
	close(fd);
}

/*
 * /proc/sys/net is that of the reader's namespace, and the daemon never enters a pod's: what the
 * pod's interface inherits is set before it exists.
 */
static void prepare_namespace(void)
{
	set_sysctl("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
	set_sysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0");
	set_sysctl("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0");
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
	descriptors[0] = pod;
	descriptors[1] = route;
	descriptor_count = 2;
	return 0;
}

static int dial(const char *path, int timeout_ms)
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

static bool send_request(int fd)
{
	struct iovec parts[] = {
		{ &header, sizeof(header) },
		{ environment, header.environment_bytes },
		{ config, header.config_bytes },
	};
	char control[CMSG_SPACE(sizeof(descriptors))] = { 0 };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 3 };
	size_t first = 0;

	if (descriptor_count) {
		struct cmsghdr *rights = (struct cmsghdr *)control;

		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		*rights = (struct cmsghdr){ CMSG_LEN(sizeof(descriptors)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(rights), descriptors, sizeof(descriptors));
	}
	while (first < 3) {
		ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return false;
		message.msg_control = NULL;
		message.msg_controllen = 0;
		for (; n > 0 && first < 3 && (size_t)n >= parts[first].iov_len; first++)
			n -= parts[first].iov_len;
		if (first < 3 && n > 0) {
			parts[first].iov_base = (char *)parts[first].iov_base + n;
			parts[first].iov_len -= n;
		}
		while (first < 3 && !parts[first].iov_len)
			first++;
		message.msg_iov = parts + first;
		message.msg_iovlen = 3 - first;
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

static bool exchange(int fd, struct answer *answer, int64_t deadline_ms)
{
	return send_request(fd) && receive(fd, answer, sizeof(*answer), deadline_ms) &&
	       answer->bytes <= sizeof(text) && receive(fd, text, answer->bytes, deadline_ms);
}

/*
 * True with an answer. A daemon that dies before it answers has undone the verb when it is back,
 * so what was asked is asked again while the verb may still wait for a listener.
 */
static bool ask(const struct verb *verb, struct answer *answer)
{
	const char *path = env("WEFT_CNI_SOCKET", SOCKET);
	int64_t start_ms = now_ms(), end_ms = start_ms + verb->connect_ms;

	for (;;) {
		int fd = dial(path, verb->answer_ms);
		bool answered = fd >= 0 && exchange(fd, answer, start_ms + verb->answer_ms);

		if (fd >= 0)
			close(fd);
		if (answered || now_ms() >= end_ms)
			return answered;
		poll(NULL, 0, RETRY_MS);
	}
}

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

static bool write_all(int fd, const void *data, size_t length)
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

static bool write_deletion(int folder, const char *temporary, const char *name)
{
	int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return false;
	if (!write_all(fd, &header, sizeof(header)) ||
	    !write_all(fd, environment, header.environment_bytes) ||
	    !write_all(fd, config, header.config_bytes) || fsync(fd) || close(fd) ||
	    renameat(folder, temporary, folder, name))
		return false;
	return !fsync(folder);
}

/* A node without the folder never had a daemon, so nothing is attached there. */
static void queue_deletion(void)
{
	const char *path = env("WEFT_CNI_DELETIONS", DELETIONS);
	const char *id = env("CNI_CONTAINERID", ""), *ifname = env("CNI_IFNAME", "");
	char name[256], temporary[280];
	int folder;

	if (!is_container_id(id) || !is_ifname(ifname))
		fail(ENVIRONMENT, "CNI_CONTAINERID or CNI_IFNAME is missing or invalid", "");
	folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0 && errno == ENOENT)
		return;
	snprintf(name, sizeof(name), "%s@%s", id, ifname);
	snprintf(temporary, sizeof(temporary), ".%s.%d", name, getpid());
	if (folder < 0 || !write_deletion(folder, temporary, name))
		fail(TRY_AGAIN, "no daemon answers and the deletion cannot be queued", strerror(errno));
}

static int run(const struct verb *verb)
{
	struct answer answer;
	char entry[64];
	int error;

	read_config();
	collect_environment();
	if (verb->in_namespace && getenv("CNI_NETNS")) {
		error = open_namespace(getenv("CNI_NETNS"));
		snprintf(entry, sizeof(entry), "WEFT_NETNS_ERRNO=%d", error);
		add_environment(entry);
	}
	if (ask(verb, &answer)) {
		if (!write_all(STDOUT_FILENO, text, answer.bytes))
			return 2;
		return answer.exit_code;
	}
	if (strcmp(verb->name, "DEL"))
		fail(verb->code, "weftd does not answer", env("WEFT_CNI_SOCKET", SOCKET));
	queue_deletion();
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
	snprintf(text, sizeof(text), "unknown CNI_COMMAND: %s", command);
	fail(ENVIRONMENT, text, "");
}
