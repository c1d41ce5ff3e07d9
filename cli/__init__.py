"""The `weft` command, a client of one node's daemon (weft.proxy.api)."""
