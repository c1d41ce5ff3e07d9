"""What the smoke tests look at: three servers, their Service, the nodes they run on."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.lab.api import Api
from deploy.lab.node import Running
from tests.cluster.pods import Ip, Pod

NAMESPACE = "smoke"
SERVICE = "servers"


@dataclass(frozen=True, slots=True)
class Scene:
    """Three servers behind one Service: alpha and beta on the first node, gamma on the second."""

    api: Api
    nodes: dict[str, Running]
    alpha: Pod
    beta: Pod
    gamma: Pod
    service: tuple[Ip, ...]

    def vip(self, family: int) -> Ip:
        return next(address for address in self.service if address.version == family)
