"""The smallest source that has all that the build and the loader must handle."""

TINY = """\
#include <linux/bpf.h>
#include "layout.h"
BPF_TABLE("array", u32, struct settings, settings, 1);
BPF_TABLE("percpu_array", u32, struct counter, counters, 256);

static int count(u32 at)
{
	struct counter *one = counters.lookup(&at);
	if (one)
		one->packets++;
	return one ? 1 : 0;
}

int connect4(struct bpf_sock_addr *ctx)
{
	u32 zero = 0;
	return settings.lookup(&zero) ? count(1) : 1;
}

int from_pod(struct __sk_buff *skb)
{
	count(8);
	return -1;
}

int to_pod(struct __sk_buff *skb)
{
	count(9);
	return -1;
}

int from_uplink(struct __sk_buff *skb)
{
	count(10);
	return -1;
}

int to_uplink(struct __sk_buff *skb)
{
	count(11);
	return -1;
}
"""
