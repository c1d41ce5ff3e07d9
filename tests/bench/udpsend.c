/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sender of the path benches: COUNT datagrams of 64 bytes from one thread to a socket that
 * nobody reads. The whole path runs in the sender's context, so its CPU time is the path's cost.
 * usage: udpsend ADDRESS PORT COUNT; prints CPU nanoseconds per datagram.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

static double cpu_ns(void)
{
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e9 +
	       (use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1e3;
}

static int dial(const char *address, int port)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	int is_v4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
	int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0);

	if (!is_v4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1)
		return -1;
	if (is_v4)
		return connect(fd, (struct sockaddr *)&v4, sizeof(v4)) ? -1 : fd;
	return connect(fd, (struct sockaddr *)&v6, sizeof(v6)) ? -1 : fd;
}

int main(int argc, char **argv)
{
	char payload[64];
	long count, sent = 0;
	double before;
	int fd;

	if (argc != 4 || (fd = dial(argv[1], atoi(argv[2]))) < 0) {
		perror("udpsend ADDRESS PORT COUNT");
		return 1;
	}
	memset(payload, 'w', sizeof(payload));
	count = atol(argv[3]);
	before = cpu_ns();
	for (long i = 0; i < count; i++)
		sent += send(fd, payload, sizeof(payload), 0) == sizeof(payload);
	printf("%.1f %ld\n", (cpu_ns() - before) / count, sent);
	return 0;
}
