"""Answers about the node: health, metrics, flows and the gRPC API. Reads only.

Everything here sees the loop through `weft.proxy.loop.View` and the kernel through its tables;
nothing alters either. `serve.Observation` starts and stops it all.
"""
