"""What Weft answers to clients on its node: weft.proto and the stubs that `make api` generates.

The only part of the daemon that clients import; it imports nothing of ours.
"""
