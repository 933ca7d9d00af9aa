"""Host, Origin and proxies: what a foreign page or a by-passed proxy can do, over real HTTP."""

import http.client
from urllib.parse import urlsplit

import pytest
import requests
from argon2 import PasswordHasher

from heatmask.serving.access import passwords

FOREIGN = "Requests of other web sites are not answered."


def ask(url: str, method: str = "GET", path: str = "/info/", **headers: str) -> tuple[int, str]:
    """Send a request with exactly these headers; the port is put in for PORT."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value.replace("PORT", str(place.port)))
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@pytest.fixture
def url(start) -> str:
    return start(allowed_hosts=("Scans.Hospital.org",)).url


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:PORT", "127.0.0.1", "localhost:PORT", "LOCALHOST", "localhost.", "[::1]:PORT",
     "192.168.1.7:9000", "scans.hospital.org", "scans.hospital.org:443"],
)  # fmt: skip
def test_its_own_names_and_any_address_are_answered(url, host):
    assert ask(url, Host=host)[0] == 200
    assert ask(url, "POST", "/train", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.com", "evil.com:PORT", "localhost.evil.com", "127.0.0.1.evil.com", "127.0.0.1@evil.com",
     "evil.com/localhost", "", "a b", "localhost:PORT:PORT", "hospital.org", "[::1]evil.com",
     "0x7f.1"],
)  # fmt: skip
def test_a_name_that_was_made_to_point_here_is_refused(url, host):
    status, text = ask(url, Host=host)
    assert status in (400, 403)  # 400: not even HTTP
    if status == 403:
        assert "--allow-host" in text


def test_a_request_without_a_host_is_refused(url):
    assert ask(url)[0] in (400, 403)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.com", "null", "http://127.0.0.1:1", "http://localhost:PORT", "file://",
     "https://127.0.0.1:PORT.evil.com", "http://127.0.0.1", "127.0.0.1:PORT", "",
     "chrome-extension://127.0.0.1:PORT"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/train"), ("GET", "/info/"), ("OPTIONS", "/train")]
)
def test_a_foreign_page_can_start_and_read_nothing(url, origin, method, path):
    answer = ask(
        url, method, path, Host="127.0.0.1:PORT", Origin=origin,
        Content_Type="text/plain", Content_Length="0",
    )  # fmt: skip
    assert answer == (403, FOREIGN)


@pytest.mark.parametrize(
    ("host", "origin"),
    [("127.0.0.1:PORT", "http://127.0.0.1:PORT"), ("scans.hospital.org", "https://scans.hospital.org"),
     ("scans.hospital.org:443", "https://scans.hospital.org"), ("[::1]:PORT", "http://[::1]:PORT")],
)  # fmt: skip
def test_the_servers_own_page_works(url, host, origin):
    headers = {"Host": host, "Origin": origin, "Sec_Fetch_Site": "same-origin"}
    assert ask(url, "POST", "/train", **headers)[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_cannot_embed_what_needs_no_origin(url, site):
    headers = {"Host": "127.0.0.1:PORT", "Sec_Fetch_Site": site}
    assert ask(url, **headers, Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image") == (403, FOREIGN)
    frame = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}
    assert ask(url, **headers, **frame) == (403, FOREIGN)
    link = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert ask(url, **headers, **link)[0] == 200
    assert ask(url, "POST", "/train", **headers, **link) == (403, FOREIGN)


def test_nothing_is_answered_to_other_sites_in_words_of_cors(url):
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    connection.request("GET", "/info/")
    names = {name.lower() for name, _ in connection.getresponse().getheaders()}
    assert not {name for name in names if name.startswith("access-control")}
    assert "server" not in names


@pytest.fixture
def quick(monkeypatch):
    """Wrong passwords of unknown users that cost nothing: here only their number counts."""
    monkeypatch.setattr(passwords, "_NOBODYS", PasswordHasher(1, 8, 1).hash("x"))


@pytest.mark.usefixtures("users", "quick")
def test_what_a_proxy_says_is_believed_of_a_proxy_alone(start):
    """A client could otherwise choose the address that its failures are counted for."""
    site = start()
    statuses = [attempt_log_in(site.url, f"10.0.0.{n}", f"user{n}") for n in range(31)]
    assert statuses == [401] * 30 + [429]


@pytest.mark.usefixtures("users", "quick")
def test_a_proxy_names_the_address_that_fails(start):
    site = start(proxies=("127.0.0.1",))
    assert [attempt_log_in(site.url, "10.0.0.1", f"user{n}") for n in range(31)][30] == 429
    assert attempt_log_in(site.url, "10.0.0.2", "user") == 401
    # What the client itself wrote stands first; the proxy adds where it comes from.
    assert attempt_log_in(site.url, "10.0.0.9, 10.0.0.1", "user") == 429


def attempt_log_in(url: str, address: str, name: str) -> int:
    return requests.post(
        f"{url}/auth/token",
        data={"username": name, "password": "wrong horse battery"},
        headers={"X-Forwarded-For": address, "X-Forwarded-Proto": "https"},
        timeout=60,
    ).status_code


def test_behind_a_proxy_unencrypted_requests_are_refused(start, users):
    site = start(proxies=("10.1.0.0/16", "127.0.0.1"))
    status, text = ask(site.url, Host="127.0.0.1", X_Forwarded_Proto="http")
    assert (status, text) == (403, "Use https: the proxy got this request unencrypted.")
    assert ask(site.url, Host="127.0.0.1", X_Forwarded_Proto="https")[0] == 401
    assert ask(site.url, Host="127.0.0.1")[0] == 401  # a check of health from this machine
