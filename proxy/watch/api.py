"""Owns requests to an API server of which there are several addresses: which one, with what token.

Never interprets an answer beyond its HTTP status, and never finds addresses (watch.connect does).
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import urllib3
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 3.0
TOKEN_PERIOD_S = 60.0
BODY_TYPES = {"PATCH": "application/strategic-merge-patch+json", "POST": "application/json"}


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

    def get(self, path: str, query: Mapping[str, str], read_timeout_s: float) -> BaseHTTPResponse:
        """An open response of status 200, to be closed by the caller.

        Raises ApiError, ApiUnreachable. `read_timeout_s` bounds each silence, not the whole.
        """
        return self._request("GET", f"{path}?{urlencode(query)}", None, read_timeout_s)

    def patch(self, path: str, body: bytes) -> None:
        """Strategic merge patch. Raises ApiError, ApiUnreachable."""
        self._request("PATCH", path, body, CONNECT_TIMEOUT_S * 3).drain_conn()

    def post(self, path: str, body: bytes) -> None:
        """Create an object. Raises ApiError, ApiUnreachable."""
        self._request("POST", path, body, CONNECT_TIMEOUT_S * 3).drain_conn()

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
            headers["Content-Type"] = BODY_TYPES[method]
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
