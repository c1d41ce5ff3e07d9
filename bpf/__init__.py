"""The kernel side of Weft and its exact mirror in Python; decides nothing about a cluster."""
