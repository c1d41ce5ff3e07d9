"""Owns the way to an API server: which addresses, in which order, with whose credentials.

Configuration, TLS and transport are the official client's; lists and watches read raw streams of
it. Never interprets an answer beyond its HTTP status.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 3.0
TOKEN_PERIOD_S = 60.0
PATCH_TYPE = "application/strategic-merge-patch+json"

# A peer that vanished without a word is found out in 10 s + 3 x 5 s.
_KEEPALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class ApiError(Exception):
    """The server answered, but not with success: its status code and words."""

    def __init__(self, status: int, what: str, said: str) -> None:
        super().__init__(f"{what}: HTTP {status}: {said}")
        self.status = status


class ApiUnreachable(Exception):
    """No server answered: each address with what it said."""


@dataclass(slots=True)
class Credentials:
    """The bearer token, re-read every minute and when the server refuses it (401)."""

    token_file: Path | None
    fixed: str = ""
    _token: str = ""
    _read_at_s: float = float("-inf")

    def header(self) -> str:
        """The Authorization header; "" for none. Keeps the last token when reading fails."""
        if self.token_file is None:
            return self.fixed
        now_s = time.monotonic()
        if now_s - self._read_at_s > TOKEN_PERIOD_S:
            try:
                self._token = self.token_file.read_text().strip()
            except OSError as error:
                log.warning("token unreadable", extra={"error": str(error)})
            self._read_at_s = now_s
        return f"Bearer {self._token}" if self._token else ""

    def refused(self) -> None:
        self._read_at_s = float("-inf")


class ApiServers:
    """Several addresses of one API. Keeps to the one that answers, moves on when it does not."""

    def __init__(
        self, urls: Sequence[str], pool: urllib3.PoolManager, credentials: Credentials
    ) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._pool = pool
        self._credentials = credentials
        self._current = 0
        self._lock = threading.Lock()

    @classmethod
    def connect(cls, api_servers: Sequence[str], kubeconfig: str, kubelet_servers: Path) -> Self:
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
        return cls(tuple(dict.fromkeys(urls)), pool, credentials)

    def get(self, path: str, query: Mapping[str, str], read_timeout_s: float) -> BaseHTTPResponse:
        """An open response of status 200, to be closed by the caller.

        Raises ApiError, ApiUnreachable. `read_timeout_s` bounds each silence, not the whole.
        """
        return self._request("GET", f"{path}?{urlencode(query)}", None, read_timeout_s)

    def patch(self, path: str, body: bytes) -> None:
        """Strategic merge patch. Raises ApiError, ApiUnreachable."""
        self._request("PATCH", path, body, CONNECT_TIMEOUT_S * 3).drain_conn()

    def _request(
        self, method: str, path: str, body: bytes | None, read_timeout_s: float
    ) -> BaseHTTPResponse:
        failures: list[str] = []
        for _ in self._urls:
            number, url = self._current, self._urls[self._current]
            try:
                response = self._send(method, url + path, body, read_timeout_s)
            except HTTPError as error:
                failures.append(f"{url}: {error}")
                self._leave(number)
                continue
            return self._checked(response, f"{method} {url}{path}")
        raise ApiUnreachable(f"{method} {path}: {'; '.join(failures)}")

    def _send(
        self, method: str, url: str, body: bytes | None, read_timeout_s: float
    ) -> BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": "weftd"}
        if token := self._credentials.header():
            headers["Authorization"] = token
        if body is not None:
            headers["Content-Type"] = PATCH_TYPE
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s)
        return self._pool.request(
            method,
            url,
            headers=headers,
            body=body,
            timeout=timeout,
            retries=False,
            preload_content=False,
        )

    def _checked(self, response: BaseHTTPResponse, what: str) -> BaseHTTPResponse:
        if response.status in (200, 201):
            return response
        if response.status == 401:
            self._credentials.refused()
        said = response.read(2048).decode(errors="replace")
        response.close()
        raise ApiError(response.status, what, said)

    def _leave(self, number: int) -> None:
        """Another thread may have moved on already: then its choice stands."""
        with self._lock:
            if self._current == number and len(self._urls) > 1:
                self._current = (number + 1) % len(self._urls)
                log.warning("api server changed", extra={"url": self._urls[self._current]})


def _configuration(kubeconfig: str) -> tuple[Any, Credentials]:
    """The official client's configuration and where the token comes from."""
    configuration = Configuration()
    configuration.host = ""
    if kubeconfig:
        load_kube_config(  # type: ignore[no-untyped-call]
            kubeconfig, client_configuration=configuration
        )
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
