"""Owns the file by which a runtime learns of us. Written last, and never removed on a stop."""

from pathlib import Path

from weft.cni import conflist
from weft.cni.files import replace_file


def install_conflist(folder: Path) -> bool:
    """Writes `05-weft.conflist` into a runtime's configuration folder; False: it was there already.

    To be called once pods can be served: kubelet takes the file for readiness. Raises OSError.
    """
    path = folder / conflist.FILE
    text = conflist.render(path.read_bytes() if path.exists() else None)
    if text is None:
        return False
    replace_file(path, text, mode=0o644)
    return True
