/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The caller of the connect bench: COUNT times socket(), connect() and close() of UDP, which
 * sends nothing, from one thread in the cgroup CGROUP ("-": as it is).
 * usage: connectloop CGROUP ADDRESS PORT COUNT; prints CPU nanoseconds per round.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

static int enter(const char *cgroup)
{
	char path[4096];
	FILE *members;
	int failed;

	if (!strcmp(cgroup, "-"))
		return 0;
	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	members = fopen(path, "w");
	if (!members)
		return -1;
	failed = fprintf(members, "%d", getpid()) < 0;
	return fclose(members) || failed ? -1 : 0;
}

static int dial(const struct sockaddr_in *peer)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int failed = fd < 0 || connect(fd, (const struct sockaddr *)peer, sizeof(*peer));

	if (fd >= 0)
		close(fd);
	return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in peer = {.sin_family = AF_INET};
	double before;
	long count;

	if (argc != 5 || enter(argv[1]) || inet_pton(AF_INET, argv[2], &peer.sin_addr) != 1) {
		perror("connectloop CGROUP ADDRESS PORT COUNT");
		return 1;
	}
	peer.sin_port = htons(atoi(argv[3]));
	count = atol(argv[4]);
	before = cpu_ns();
	for (long i = 0; i < count; i++) {
		if (dial(&peer)) {
			perror("connect");
			return 1;
		}
	}
	printf("%.1f\n", (cpu_ns() - before) / count);
	return 0;
}
