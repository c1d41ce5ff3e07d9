/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Short connections and request-response over TCP, and when a new server answers.
 *
 * usage: shortconn serve NAME PORT | connect ADDRESS PORT COUNT | rr ADDRESS PORT COUNT |
 * until ADDRESS PORT NAME. NAME is one letter. A server sends it and then whatever it gets, byte by
 * byte. connect and rr print the seconds that COUNT took; until says "asking" once anybody has
 * answered, and CLOCK_MONOTONIC in seconds once NAME has.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 64
#define PAUSE_US 200

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int dial(struct sockaddr_in *to, char *name)
{
	struct timeval limit = {.tv_sec = 5};
	int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);

	if (s < 0)
		fail("socket");
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(s, (struct sockaddr *)to, sizeof(*to)) || read(s, name, 1) != 1) {
		close(s);
		return -1;
	}
	return s;
}

static void serve(char name, struct sockaddr_in *at)
{
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[EVENTS];

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)at, sizeof(*at)) || listen(listener, 4096))
		fail("listen");
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		int n = epoll_wait(epoll, ready, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			int fd = ready[i].data.fd;
			char byte;

			if (fd == listener) {
				fd = accept(listener, 0, 0);
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				event.data.fd = fd;
				epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
				if (write(fd, &name, 1) == 1)
					continue;
			} else if (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1) {
				continue;
			}
			close(fd);
		}
	}
}

static void connect_often(struct sockaddr_in *to, int count)
{
	double began = now();

	for (int i = 0; i < count; i++) {
		char name;
		int s = dial(to, &name);

		if (s < 0)
			fail("connect");
		close(s);
	}
	printf("%.9f\n", now() - began);
}

static void ask_often(struct sockaddr_in *to, int count)
{
	char byte;
	int s = dial(to, &byte);
	double began = now();

	if (s < 0)
		fail("connect");
	for (int i = 0; i < count; i++)
		if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1)
			fail("exchange");
	printf("%.9f\n", now() - began);
}

static void await_name(struct sockaddr_in *to, char wanted)
{
	char name = 0;

	for (int first = 1; name != wanted;) {
		int s = dial(to, &name);

		if (s < 0)
			continue;
		close(s);
		if (first)
			puts("asking");
		fflush(stdout);
		first = 0;
		usleep(PAUSE_US);
	}
	printf("%.9f\n", now());
}

int main(int argc, char **argv)
{
	struct sockaddr_in peer = {.sin_family = AF_INET};
	int serves = argc == 4 && !strcmp(argv[1], "serve");

	if (!serves && argc != 5)
		return 2;
	peer.sin_port = htons(atoi(argv[3]));
	if (serves)
		serve(argv[2][0], &peer);
	if (inet_pton(AF_INET, argv[2], &peer.sin_addr) != 1)
		return 2;
	if (!strcmp(argv[1], "connect"))
		connect_often(&peer, atoi(argv[4]));
	else if (!strcmp(argv[1], "rr"))
		ask_often(&peer, atoi(argv[4]));
	else
		await_name(&peer, argv[4][0]);
	return 0;
}
