"""Who may connect behind a proxy; a peer's address cannot be chosen over loopback."""

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from heatmask.serving.access.guard import ProxyGuard


@pytest.mark.parametrize(
    ("peer", "status"),
    [("10.1.2.3", 200), ("172.28.0.5", 200), ("127.0.0.1", 200), ("::1", 200), ("10.2.0.1", 403),
     ("172.28.0.6", 403), ("", 403), ("testclient", 403)],
)  # fmt: skip
def test_only_the_proxies_and_this_machine_connect(peer, status):
    guard = ProxyGuard(PlainTextResponse("in"), ["10.1.0.0/16", "172.28.0.5"])
    assert TestClient(guard, client=(peer, 5000)).get("/").status_code == status


def test_websockets_are_guarded_too():
    guard = ProxyGuard(PlainTextResponse("in"), ["10.1.0.0/16"])
    client = TestClient(guard, client=("10.2.0.1", 5000))
    with pytest.raises(WebSocketDisconnect) as end, client.websocket_connect("/"):
        pass
    assert end.value.code == 1008
