"""Owns how the node's connected UDP sockets leave a backend that is gone: they are ended.

The application's next call on such a socket fails (a receive that waits: ECONNABORTED), and when it
connects anew, on the same descriptor, it gets another backend. A socket is touched only if the
socket hook remembers that it dialled a VIP, or if its peer is one, which it dialled before that was
so. Never chooses the backend.
"""

from collections.abc import Collection, Mapping

from weft.bpf.layout import Frontend, FrontendKey, SocketKey, SocketVip, pack_u64
from weft.bpf.table import Table
from weft.proxy.apply import sockdiag
from weft.proxy.apply.sockdiag import Connected, SockDiag
from weft.proxy.model.objects import PROTOCOL_NUMBERS, Protocol
from weft.proxy.plan.sockets import Target, backend_of

_UDP = PROTOCOL_NUMBERS[Protocol.UDP]
_ASKED_ONE_BY_ONE = 8
"""Asking for more targets than this costs more than listing every socket (100 of 10,000: 4 ms
each, all of them 26 ms)."""


class Sockets:
    """Looks at this network namespace's sockets with what the kernel's tables say of them."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._sockets, self._frontends = tables["sockets"], tables["frontends"]
        self._backends = tables["backends"]

    def leave(self, targets: Collection[Target] | None) -> int:
        """End the sockets that are left with a backend which is gone, of all or those connected to
        `targets`; how many there were. Raises OSError.
        """
        with sockdiag.opened() as diag:
            return diag.end([one for one in _listed(diag, targets) if self._is_stranded(one)])

    def _is_stranded(self, one: Connected) -> bool:
        dialled = self._sockets.lookup(SocketKey(one.cookie, one.peer, one.port).pack())
        if dialled is None:
            key = FrontendKey(one.peer, one.port, _UDP)
            return self._frontends.lookup(key.pack()) is not None
        vip = SocketVip.unpack(dialled)
        row = self._frontends.lookup(FrontendKey(vip.addr, vip.port, _UDP).pack())
        if row is None:
            return True
        backend = backend_of(Frontend.unpack(row), Target(one.peer, one.port))
        return self._backends.lookup(pack_u64(backend)) is None


def _listed(diag: SockDiag, targets: Collection[Target] | None) -> list[Connected]:
    if targets is None or len(targets) > _ASKED_ONE_BY_ONE:
        return diag.connected()
    return [one for target in targets for one in diag.connected(*target)]
