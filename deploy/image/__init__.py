"""The node image: an OCI archive made from Debian packages and wheels, without an image engine.

`python -m deploy.image` (or `make image`) writes build/weft-image.tar. Nothing here runs on a node.
"""
