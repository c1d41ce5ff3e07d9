"""Where the API server is looked for."""

from pathlib import Path

import pytest
import yaml

from tests.unit.watch.fake_api import FakeApi
from weft.proxy.watch.api import ApiUnreachable
from weft.proxy.watch.connect import connect

NOWHERE = Path("/nonexistent/kubelet-api-servers")


@pytest.fixture(autouse=True)
def outside_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def kubeconfig(folder: Path, server: str) -> str:
    path = folder / "kubeconfig"
    named = {"name": "it"}
    config = {
        "current-context": "it",
        "contexts": [named | {"context": {"cluster": "it", "user": "it"}}],
        "clusters": [named | {"cluster": {"server": server}}],
        "users": [named | {"user": {"token": "secret"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_settings_come_first_then_what_the_kubelet_uses(tmp_path: Path) -> None:
    with FakeApi() as api:
        noted = tmp_path / "kubelet-api-servers"
        noted.write_text(f'"{api.url}"\n')
        servers = connect(["http://127.0.0.1:1"], "", noted)
        api.answers.put(lambda exchange: exchange.json({}))
        assert servers.get("/x", {}, 1.0).status == 200


def test_a_kubeconfig_gives_address_and_token(tmp_path: Path) -> None:
    with FakeApi() as api:
        servers = connect([], kubeconfig(tmp_path, api.url), NOWHERE)
        api.answers.put(lambda exchange: exchange.json({}))
        servers.get("/x", {}, 1.0)
        assert api.seen[0].authorization == "Bearer secret"


def test_no_address_at_all_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(ApiUnreachable, match="set api-servers"):
        connect([], "", NOWHERE)


def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_text("clusters: []\n")
    with pytest.raises(ApiUnreachable, match=str(path)):
        connect([], str(path), NOWHERE)
