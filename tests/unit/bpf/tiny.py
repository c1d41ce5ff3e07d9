"""The smallest source that has all that the build and the loader must handle."""

TINY = """\
#include <linux/bpf.h>
#include "layout.h"
BPF_TABLE("array", u32, struct settings, settings, 1);
BPF_TABLE("percpu_array", u32, struct counter, counters, 256);
BPF_RINGBUF_OUTPUT(events, 256);

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
	struct event *event = events.ringbuf_reserve(sizeof(*event));

	count(11);
	if (!event)
		return 1;
	__builtin_memset(event, 0, sizeof(*event));
	event->reason = skb->mark;
	event->bytes = skb->len;
	if (skb->mark == 99)
		events.ringbuf_discard(event, 0);
	else
		events.ringbuf_submit(event, 0);
	return -1;
}
"""
