"""A real Kubernetes cluster in network namespaces of one machine: no Docker engine, no registry.

`python -m deploy.lab --help` is the way in. Nothing in here is shipped to a node: the lab
brings up a control plane, kubelets and containerd, and lets Weft arrive as it does anywhere, by
its image and its manifest.
"""
