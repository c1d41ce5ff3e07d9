"""Owns where the API is and who we are there: settings, the cluster's environment, a kubeconfig.

Configuration, TLS and transport are the official client's, which costs 25 MB and a third of a
second: a daemon on a folder of manifests never imports this.
"""

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

from weft.proxy.watch.api import ApiServers, ApiUnreachable, Credentials

log = logging.getLogger(__name__)

# A peer that vanished without a word is found out in 10 s + 3 x 5 s.
_KEEPALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


def connect(api_servers: Sequence[str], kubeconfig: str, kubelet_servers: Path) -> ApiServers:
    """By setting, in-cluster environment and what the node's kubelet uses, in this order.

    Nothing is connected yet. ApiUnreachable when no address is known at all.
    """
    configuration, credentials = _configuration(kubeconfig)
    urls = [*api_servers]
    if configuration.host:
        urls.append(configuration.host)
    urls += _kubelet_servers(kubelet_servers)
    if not urls:
        raise ApiUnreachable(
            "no address of an API server is known: set api-servers, or run in a cluster, "
            f"or give a kubeconfig; {kubelet_servers} names none either"
        )
    configuration.socket_options = list(_KEEPALIVE)
    configuration.connection_pool_maxsize = 16
    pool = RESTClientObject(configuration).pool_manager
    return ApiServers(tuple(dict.fromkeys(urls)), pool, credentials)


def _configuration(kubeconfig: str) -> tuple[Any, Credentials]:
    """The official client's configuration and where the token comes from."""
    configuration = Configuration()
    configuration.host = ""
    if kubeconfig:
        try:
            load_kube_config(  # type: ignore[no-untyped-call]
                kubeconfig, client_configuration=configuration
            )
        except ConfigException as error:
            raise ApiUnreachable(f"kubeconfig {kubeconfig} cannot be used: {error}") from error
        return configuration, Credentials(None, configuration.api_key.get("BearerToken", ""))
    loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
        SERVICE_TOKEN_FILENAME, SERVICE_CERT_FILENAME, False, os.environ
    )
    try:
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        log.info("not in a cluster", extra={"why": str(error)})
        return configuration, Credentials(None)
    return configuration, Credentials(Path(SERVICE_TOKEN_FILENAME))


def _kubelet_servers(path: Path) -> list[str]:
    """The servers of the node's own kubelet, one a line, as deploy/install.yaml notes them.

    Its credentials are not ours to use.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    return [line.strip(" \"'") for line in lines if "://" in line]
