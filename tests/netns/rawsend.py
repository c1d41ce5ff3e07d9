"""Puts frames on a link as they are. usage: rawsend.py LINK FRAME-IN-HEX..."""

import socket
import sys

with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
    link.bind((sys.argv[1], 0))
    for frame in sys.argv[2:]:
        link.send(bytes.fromhex(frame))
