/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs take from the kernel: header layouts (uapi only, so that no object depends on
 * one kernel's insides), protocols' numbers and byte order.
 */
#ifndef WEFT_KERNEL_H
#define WEFT_KERNEL_H

#include <uapi/linux/bpf.h>
#include <uapi/asm-generic/errno.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/if_packet.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/pkt_cls.h>
#include <uapi/linux/tcp.h>

/* linux/socket.h: its uapi half has none. */
#define AF_INET 2
#define AF_INET6 10

#define BE16(x) ((__be16)__builtin_bswap16(x))
#define BE32(x) ((__be32)__builtin_bswap32(x))


/* TCP's flags, the 14th byte of its header. */
#define TCP_FLAGS_OFFSET 13
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
/* Its upper half: the header's length in words of 4 bytes. */
#define TCP_DATA_OFFSET 12
/* RFC 9293 3.2: options, each of a kind and a length but for the first two. */
#define TCP_OPTION_END 0
#define TCP_OPTION_NOTHING 1
#define TCP_OPTION_MSS 2
#define TCP_OPTION_MSS_BYTES 4

/* RFC 792 and RFC 4443. */
#define ICMP4_ECHO_REPLY 0
#define ICMP4_UNREACHABLE 3
#define ICMP4_ECHO 8
#define ICMP4_TIME_EXCEEDED 11
#define ICMP4_PARAMETER_PROBLEM 12
#define ICMP4_PORT_UNREACHABLE 3
#define ICMP4_FRAGMENTATION_NEEDED 4
#define ICMP6_UNREACHABLE 1
#define ICMP6_PACKET_TOO_BIG 2
#define ICMP6_PARAMETER_PROBLEM 4
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_MLD_QUERY 130
#define ICMP6_MLD_DONE 132
#define ICMP6_ROUTER_SOLICIT 133
#define ICMP6_ROUTER_ADVERT 134
#define ICMP6_NEIGHBOUR_SOLICIT 135
#define ICMP6_NEIGHBOUR_ADVERT 136
#define ICMP6_REDIRECT 137
#define ICMP6_MLD2_REPORT 143
#define ICMP6_PORT_UNREACHABLE 4

#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_FRAGMENT_MORE 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_FRAGMENT_OFFSET 0xfff8

#endif
