// SPDX-License-Identifier: Apache-2.0
// A pod's first process: holds its namespaces, reaps what is orphaned into it, ends when told.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int number)
{
	_exit(number == SIGTERM || number == SIGINT ? 0 : 1);
}

static void reap(int number)
{
	(void)number;
	while (waitpid(-1, 0, WNOHANG) > 0)
		;
}

int main(void)
{
	signal(SIGTERM, leave);
	signal(SIGINT, leave);
	signal(SIGCHLD, reap);
	for (;;)
		pause();
}
