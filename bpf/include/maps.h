/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map, declared once; genlayout.py reads this file for layout.TABLES.
 * The loader may choose other sizes. LRU maps are preallocated: the kernel insists.
 */
#ifndef WEFT_MAPS_H
#define WEFT_MAPS_H

#include "layout.h"

BPF_TABLE("array", u32, struct settings, settings, 1);
BPF_F_TABLE("hash", struct address, struct workload, workloads, 4096, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", u32, struct pod_link, pod_links, 4096, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", u64, struct sandbox, sandboxes, 4096, BPF_F_NO_PREALLOC);

BPF_F_TABLE("hash", struct frontend_key, struct frontend, frontends, 524288, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct slot_key, struct slot, slots, 524288, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct ring_key, struct ring, rings, 524288, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", u64, struct backend, backends, 524288, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct range_key, u32, source_ranges, 65536, BPF_F_NO_PREALLOC);

BPF_TABLE("lru_hash", struct tuple, struct flow, flows, 65536);
BPF_TABLE("array", u32, struct north_south, north_south, 1);
BPF_TABLE("lru_hash", struct tuple, struct translation, translations, 65536);
BPF_TABLE("lru_hash", struct affinity_key, struct translation, affinities, 65536);
BPF_TABLE("lru_hash", struct tuple, struct snat, snat, 65536);
BPF_TABLE("lru_hash", struct socket_key, struct socket_vip, sockets, 65536);
BPF_TABLE("lru_hash", struct fragment_key, struct fragment, fragments, 8192);

BPF_F_TABLE("lpm_trie", struct prefix_key, struct prefix, prefixes, 65536, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct address, u64, peers, 262144, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct prefix_key, u64, blocks, 131072, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct port_key, u32, ports, 65536, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct verdict_key, struct verdict, verdicts, 262144, BPF_F_NO_PREALLOC);

BPF_F_TABLE("hash", u32, struct uplink, uplinks, 1024, BPF_F_NO_PREALLOC);

BPF_TABLE("percpu_array", u32, struct counter, counters, 512);
BPF_RINGBUF_OUTPUT(events, 256);

#endif
