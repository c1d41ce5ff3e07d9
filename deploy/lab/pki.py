"""The cluster's certificate authority, the API server's certificate and the bearer tokens.

Owns what proves who is who in a lab. Never kept beyond the cluster's own state folder.
"""

from __future__ import annotations

import base64
import secrets
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploy.lab import spec

_DAYS = "30"


@dataclass(frozen=True, slots=True)
class Identity:
    """One user of the API: its name, its groups and the token that proves it."""

    user: str
    groups: tuple[str, ...]
    token: str


@dataclass(frozen=True, slots=True)
class Pki:
    """Paths of the files that the control plane is started with."""

    ca_cert: Path
    ca_key: Path
    api_cert: Path
    api_key: Path
    account_key: Path
    tokens: Path


def create(folder: Path, identities: Iterable[Identity]) -> Pki:
    """Makes the authority, the certificate and the token file anew in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pki = Pki(
        ca_cert=folder / "ca.crt",
        ca_key=folder / "ca.key",
        api_cert=folder / "apiserver.crt",
        api_key=folder / "apiserver.key",
        account_key=folder / "service-account.key",
        tokens=folder / "tokens.csv",
    )
    _authority(pki)
    _api_certificate(pki)
    _key(pki.account_key)
    lines = (f'{i.token},{i.user},{i.user},"{",".join(i.groups)}"\n' for i in identities)
    pki.tokens.write_text("".join(lines))
    return pki


def identity(user: str, *groups: str) -> Identity:
    """A user with a token of its own."""
    return Identity(user, groups, secrets.token_hex(16))


def write_kubeconfig(path: Path, who: Identity, ca_cert: Path) -> Path:
    """A kubeconfig for `who`, in block YAML as kubeadm writes it: shell scripts grep in them."""
    authority = base64.b64encode(ca_cert.read_bytes()).decode()
    entry = {"server": spec.API_URL, "certificate-authority-data": authority}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": entry}],
        "users": [{"name": who.user, "user": {"token": who.token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": who.user}}],
        "current-context": "lab",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


def _key(path: Path) -> None:
    _openssl("genrsa", "-out", path, "2048")


def _authority(pki: Pki) -> None:
    _key(pki.ca_key)
    _openssl(
        *("req", "-x509", "-new", "-key", pki.ca_key, "-days", _DAYS),
        *("-subj", "/CN=weft-lab", "-out", pki.ca_cert),
    )


def _api_names() -> str:
    short = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
    names = [f"DNS:{name}" for name in (*short, "kubernetes.default.svc.cluster.local")]
    services = (spec.SERVICE_NETWORK4[1], spec.SERVICE_NETWORK6[1])
    addresses = (spec.API_ADDRESS.v4, spec.API_ADDRESS.v6, *services, "127.0.0.1", "::1")
    return ",".join([*names, *(f"IP:{address}" for address in addresses)])


def _api_certificate(pki: Pki) -> None:
    request = pki.api_cert.with_suffix(".csr")
    extensions = pki.api_cert.with_suffix(".ext")
    extensions.write_text(f"subjectAltName={_api_names()}\n")
    _key(pki.api_key)
    _openssl("req", "-new", "-key", pki.api_key, "-subj", "/CN=kube-apiserver", "-out", request)
    _openssl(
        *("x509", "-req", "-in", request, "-CA", pki.ca_cert, "-CAkey", pki.ca_key),
        *("-CAcreateserial", "-days", _DAYS, "-extfile", extensions, "-out", pki.api_cert),
    )
