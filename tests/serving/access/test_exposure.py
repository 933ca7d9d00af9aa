"""Where the server may listen; and TLS by certificate files, over real HTTPS."""

import socket
import ssl
import warnings

import pytest
import requests

from heatmask.errors import OptionError
from heatmask.serving.access.exposure import check_exposure, make_uvicorn_options
from heatmask.serving.access.settings import AccessSettings, is_loopback
from helpers.oidc import PASSWORD


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.0.1"])
def test_alone_on_this_machine_nothing_is_needed(host):
    check_exposure(AccessSettings(host=host), enabled=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "scans.hospital.org", ""])
def test_other_machines_need_encryption_and_log_in(host, certificate):
    with pytest.raises(OptionError, match="other machines") as refusal:
        check_exposure(AccessSettings(host=host), enabled=False)
    for way in ("--tls-cert", "--behind-proxy", "heatmask users add", "--oidc", "hospital.md"):
        assert way in str(refusal.value)
    with pytest.raises(OptionError, match="--tls-cert") as refusal:
        check_exposure(AccessSettings(host=host), enabled=True)
    assert "users add" not in str(refusal.value)
    with pytest.raises(OptionError, match="users add") as refusal:
        check_exposure(AccessSettings(host=host, **certificate), enabled=False)
    assert "--tls-cert" not in str(refusal.value)
    check_exposure(AccessSettings(host=host, **certificate), enabled=True)
    check_exposure(AccessSettings(host=host, proxies=("10.0.0.1",)), enabled=True)


def test_a_proxy_makes_loopback_public():
    with pytest.raises(OptionError, match="Behind a proxy"):
        check_exposure(AccessSettings(proxies=("127.0.0.1",)), enabled=False)


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"proxies": ("*",)}, "must be an address"), ({"proxies": ("0.0.0.0/0",)}, "trust everybody"),
     ({"proxies": ("::/0",)}, "trust everybody"), ({"proxies": ("proxy",)}, "must be an address"),
     ({"proxies": ("10.0.0.1/8",)}, "must be an address"), ({"token_hours": 0}, "must be above 0"),
     ({"token_hours": float("nan")}, "must be above 0")],
)  # fmt: skip
def test_wrong_settings_are_refused(settings, text):
    with pytest.raises(OptionError, match=text):
        AccessSettings(**settings)


def test_a_certificate_is_checked_at_the_start(certificate, tmp_path):
    cert, key = certificate.values()
    with pytest.raises(OptionError, match="belong together"):
        AccessSettings(tls_cert=cert)
    for wrong in (
        {"tls_cert": key, "tls_key": cert},
        {"tls_cert": cert, "tls_key": tmp_path / "x"},
    ):
        with pytest.raises(OptionError, match="must be a certificate chain"):
            AccessSettings(**wrong)


def test_uvicorn_never_believes_a_proxy_by_itself():
    for settings in (AccessSettings(), AccessSettings(proxies=("10.0.0.1",))):
        options = make_uvicorn_options(settings)
        assert options["proxy_headers"] is False
        assert not options["forwarded_allow_ips"]


def test_a_name_is_loopback_only_if_it_is_sure():
    assert is_loopback("localhost")
    assert not is_loopback("localhost.evil.com")
    assert not is_loopback("")


@pytest.mark.parametrize(
    ("version", "ciphers", "name"),
    [(ssl.TLSVersion.TLSv1_3, "DEFAULT", "TLS_"), (ssl.TLSVersion.TLSv1_2, "DEFAULT", "ECDHE-"),
     (ssl.TLSVersion.TLSv1_2, "ECDHE+SHA1:RSA", None),
     (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", None)],
)  # fmt: skip
def test_only_modern_encryption_is_spoken(start, users, certificate, version, ciphers, name):
    site = start(**certificate)
    client = ssl.create_default_context(cafile=certificate["tls_cert"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = client.maximum_version = version
    client.set_ciphers(ciphers)
    address = ("127.0.0.1", int(site.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=60) as plain:
        if name is None:
            with pytest.raises(OSError, match=r"(?i)handshake|alert|protocol|reset"):
                client.wrap_socket(plain, server_hostname="127.0.0.1")
            return
        with client.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
            chosen = secured.cipher()
    assert chosen is not None
    assert chosen[0].startswith(name)
    assert "GCM" in chosen[0] or "CHACHA20" in chosen[0]


def test_the_plugin_logs_in_over_https(start, users, certificate):
    site = start(**certificate)
    assert site.client.auth_enabled()
    site.client.update_auth(site.client.auth_token("the.reviewer", PASSWORD))
    assert site.client.info()["person"] == "the.reviewer"
    trusting = requests.get(f"{site.url}/auth/", verify=str(certificate["tls_cert"]), timeout=60)
    assert trusting.json()["enabled"]
    own = {"Origin": site.url, "Sec-Fetch-Site": "same-origin"}
    answer = requests.get(f"{site.url}/auth/", headers=own, verify=False, timeout=60)
    assert answer.status_code == 200
    with pytest.raises(requests.ConnectionError):
        requests.get(site.url.replace("https", "http"), timeout=60)
