"""OpenID Connect against a real provider on a port of its own."""

import base64
import hmac
import json
import time
from collections.abc import Iterator

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import RSAKey
from monailabel.client.client import MONAILabelClientException

from heatmask.errors import OptionError
from heatmask.serving.access.oidc import Provider
from heatmask.serving.access.person import AccessError, Person, Role
from heatmask.serving.access.settings import OidcSettings, read_oidc
from heatmask.serving.access.users import Users
from helpers.oidc import PASSWORD, OidcProvider, run_provider


@pytest.fixture(scope="module")
def running() -> Iterator[OidcProvider]:
    with run_provider() as provider:
        yield provider


@pytest.fixture
def provider(running) -> Iterator[OidcProvider]:
    keys, roles, audience = running.keys, dict(running.roles), running.audience
    running.requests.clear()
    yield running
    running.keys, running.roles, running.audience = keys, roles, audience
    running.answers = True


def make_settings(provider: OidcProvider, **changes) -> OidcSettings:
    return OidcSettings(**{"issuer": provider.issuer, "client_id": "heatmask"} | changes)


def status_of(site, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"{site.url}/info/", headers=headers, timeout=60).status_code


def test_the_plugin_logs_in_at_the_provider(start, provider):
    site = start(oidc=make_settings(provider))
    enabled = requests.get(f"{site.url}/auth/", timeout=60).json()
    assert enabled == {"enabled": True, "client_id": "heatmask", "realm": provider.issuer}
    site.client.update_auth(site.client.auth_token("anna", PASSWORD))
    assert site.client.auth_valid_token()
    assert site.client.info() == {"person": "anna", "role": "reviewer"}


@pytest.mark.parametrize(
    ("name", "password", "text"),
    [("anna", "wrong", "does not take this name"), ("nobody", PASSWORD, "does not take this name"),
     ("nina", PASSWORD, "has none of the roles heatmask-annotator")],
)  # fmt: skip
def test_who_may_not_is_told_why(start, provider, name, password, text):
    site = start(oidc=make_settings(provider))
    with pytest.raises(MONAILabelClientException, match=text):
        site.client.auth_token(name, password)


def test_a_log_in_without_our_audience_names_it(start, provider):
    provider.audience = "account"  # what Keycloak does before it is set up
    site = start(oidc=make_settings(provider))
    with pytest.raises(MONAILabelClientException, match="Often its audience is missing"):
        site.client.auth_token("anna", PASSWORD)


def test_a_wrong_client_is_not_a_wrong_password(start, provider):
    settings = make_settings(provider, client_id="other", audience="heatmask")
    site = start(oidc=settings)
    answers = [
        requests.post(
            f"{site.url}/auth/token", data={"username": "anna", "password": PASSWORD}, timeout=60
        )
        for _ in range(12)
    ]
    assert {answer.status_code for answer in answers} == {503}
    assert "unauthorized_client" in answers[0].text


CHANGES = {
    "another issuer": {"iss": "https://evil.com/realms/research"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "account"},
    "other audiences": {"aud": ["account", "heatmask-other"]},
    "an audience of another kind": {"aud": {"heatmask": 1}},
    "no audience": {"aud": None},
    "expired": {"exp": int(time.time()) - 10**6},
    "never expires": {"exp": None},
    "expires as NaN": {"exp": float("nan")},
    "not yet valid": {"nbf": int(time.time()) + 10**6},
    "an ID token": {"typ": "ID"},
    "a refresh token": {"typ": "Refresh"},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_a_token_with_a_wrong_claim_is_refused(start, provider, changes):
    site = start(oidc=make_settings(provider))
    assert status_of(site, provider.token("anna")) == 200
    assert status_of(site, provider.token("anna", **changes)) == 401


def forge(provider: OidcProvider, kind: str) -> str:
    """Return a token that the provider did not make."""
    key, claims = provider.keys[-1], provider.claims("anna")
    public = key.as_pem(private=False)
    if kind == "none":
        return ".".join([_encode({"alg": "none"}), _encode(claims), ""])
    if kind == "none with its key's name":
        return ".".join([_encode({"alg": "none", "kid": key.kid}), _encode(claims), ""])
    if kind == "HS256 with the public key":
        signed = f"{_encode({'alg': 'HS256', 'kid': key.kid})}.{_encode(claims)}"
        code = hmac.digest(public, signed.encode(), "sha256")  # joserfc refuses to
        return f"{signed}.{base64.urlsafe_b64encode(code).decode().rstrip('=')}"
    if kind == "another key of the same name":
        return jwt.encode({"alg": "RS256", "kid": key.kid}, claims, RSAKey.generate_key(2048))
    if kind == "a key that the token brings":
        own = RSAKey.generate_key(2048, {"kid": "own"})
        header = {"alg": "RS256", "jwk": own.as_dict(private=False), "kid": "own"}
        return jwt.encode(header, claims, own)
    if kind == "an algorithm that is not allowed":
        plain = RSAKey.import_key(key.as_pem(private=True))
        return jwt.encode({"alg": "RS384", "kid": key.kid}, claims, plain, ["RS384"])
    head, body, signature = provider.token("anna").split(".")
    if kind == "changed":
        return ".".join([head, _encode({**claims, "preferred_username": "boss"}), signature])
    if kind == "not signed":
        return f"{head}.{body}."
    assert kind == "a kid of another kind"
    return ".".join([_encode({"alg": "RS256", "kid": ["k1"]}), body, signature])


def _encode(value: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "kind",
    ["none", "none with its key's name", "HS256 with the public key",
     "another key of the same name", "a key that the token brings",
     "an algorithm that is not allowed", "changed", "not signed",
     "a kid of another kind"],
)  # fmt: skip
def test_a_forged_token_is_refused(start, provider, kind):
    site = start(oidc=make_settings(provider))
    assert status_of(site, provider.token("anna")) == 200
    assert status_of(site, forge(provider, kind)) == 401


def test_keys_are_rotated(provider):
    now = [0.0]
    reader = Provider(make_settings(provider), clock=lambda: now[0])
    old = provider.token("anna")
    assert reader.read_token(old) == Person("anna", Role.REVIEWER)
    provider.rotate("k2")
    now[0] += 31
    assert reader.read_token(provider.token("anna")).name == "anna"
    with pytest.raises(AccessError, match="wrong or has expired"):
        reader.read_token(old)


def test_a_withdrawn_key_is_soon_worthless(provider):
    now = [0.0]
    reader = Provider(make_settings(provider), clock=lambda: now[0])
    stolen = provider.token("anna")
    reader.read_token(stolen)
    provider.rotate("k3")
    now[0] += 601
    with pytest.raises(AccessError, match="wrong or has expired"):
        reader.read_token(stolen)


def test_unknown_keys_do_not_make_us_ask_again_and_again(provider):
    now = [0.0]
    reader = Provider(make_settings(provider), clock=lambda: now[0])
    reader.read_token(provider.token("anna"))
    asked = len(provider.requests)
    foreign = RSAKey.generate_key(2048)
    for number in range(20):
        token = jwt.encode({"alg": "RS256", "kid": f"x{number}"}, provider.claims("anna"), foreign)
        with pytest.raises(AccessError):
            reader.read_token(token)
    assert len(provider.requests) == asked


def test_a_provider_that_is_down_is_said_to_be(start, provider):
    provider.answers = False
    site = start(oidc=make_settings(provider))
    answer = requests.get(
        f"{site.url}/info/",
        headers={"Authorization": f"Bearer {provider.token('anna')}"},
        timeout=60,
    )
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_known_keys_outlast_a_short_absence_of_the_provider(provider):
    now = [0.0]
    reader = Provider(make_settings(provider), clock=lambda: now[0])
    reader.read_token(provider.token("anna"))
    provider.answers = False
    now[0] += 601
    assert reader.read_token(provider.token("anna")).name == "anna"


@pytest.mark.parametrize(
    ("claims", "changes", "role"),
    [({}, {}, Role.REVIEWER),
     ({"realm_access": {"roles": ["heatmask-annotator", "heatmask-admin"]}}, {}, Role.ADMIN),
     ({"realm_access": {"roles": ["admin"]}}, {}, None),
     ({"realm_access": {"roles": "heatmask-admin-not"}}, {}, None),
     ({"realm_access": ["heatmask-admin"]}, {}, None),
     ({"groups": ["monailabel-annotator"]}, {"role_claim": "groups", "role_prefix": "monailabel-"},
      Role.ANNOTATOR),
     ({"h.org/roles": "heatmask-admin"}, {"role_claim": "h.org/roles"}, Role.ADMIN)],
)  # fmt: skip
def test_the_role_comes_from_a_claim(provider, claims, changes, role):
    reader = Provider(make_settings(provider, **changes))
    token = provider.token("anna", **claims)
    if role:
        assert reader.read_token(token).role is role
    else:
        with pytest.raises(AccessError, match="has none of the roles"):
            reader.read_token(token)


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", 7, "n" * 200, None])
def test_a_name_that_is_none_is_refused(provider, name):
    token = provider.token("anna", preferred_username=name)
    with pytest.raises(AccessError, match=r"is not a name|cannot contain") as refusal:
        Provider(make_settings(provider)).read_token(token)
    assert refusal.value.status == 403


def test_scripts_have_tokens_of_our_own_beside_the_provider(start, provider, tmp_path):
    users = Users(tmp_path / "access" / "users.sqlite")
    users.add("nightly", Role.ANNOTATOR, None)
    provider.roles["nightly"] = ["heatmask-admin"]
    site = start(oidc=make_settings(provider))
    assert status_of(site, users.make_token("nightly", "cron", 1)) == 200
    with pytest.raises(MONAILabelClientException, match="is the name of a user of this server"):
        site.client.auth_token("nightly", PASSWORD)


@pytest.mark.parametrize(
    ("answer", "text"),
    [({"issuer": "https://evil.com"}, "calls itself"), ({"jwks_uri": "http://evil.com/x"}, "https"),
     ({"token_endpoint": "ftp://127.0.0.1/"}, "https"), ({"jwks_uri": None}, "https")],
)  # fmt: skip
def test_a_provider_that_points_elsewhere_is_not_believed(
    provider, monkeypatch, caplog, answer, text
):
    reader = Provider(make_settings(provider))
    get = reader._get
    monkeypatch.setattr(reader, "_get", lambda url: get(url) | answer)
    with pytest.raises(AccessError, match="does not answer"):
        reader.update_keys()
    assert text in caplog.text


@settings(max_examples=100, deadline=None)
@given(head=st.binary(max_size=80), body=st.binary(max_size=80), text=st.text(max_size=200))
def test_any_text_is_refused_in_words(running, head, body, text):
    reader = READERS.setdefault("one", Provider(make_settings(running)))
    parts = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (head, body)]
    right_head = _encode({"alg": "RS256", "kid": "k1"})
    for token in (text, ".".join([*parts, "AA"]), ".".join([right_head, text, text])):
        with pytest.raises(AccessError) as refusal:
            reader.read_token(token)
        assert refusal.value.status == 401


READERS: dict[str, Provider] = {}


def test_deeply_nested_json_is_refused(provider):
    nested = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 100_000).decode()
    for token in (f"{nested}.AA.AA", f"{_encode({'alg': 'RS256', 'kid': 'k1'})}.{nested}.AA"):
        with pytest.raises(AccessError, match="wrong or has expired"):
            Provider(make_settings(provider)).read_token(token)


@pytest.mark.parametrize(
    ("text", "message"),
    [("issuer = 'https://x'", "must give client_id"), ("issuer =", "cannot be read as TOML"),
     ("issuer = 'https://x'\nclient_id = 'h'\nrealm = 'r'", "unknown realm"),
     ("issuer = 'http://x.org'\nclient_id = 'h'", "https address"),
     ("issuer = 7\nclient_id = 'h'", "issuer must be a text"),
     ("issuer = 'https://x'\nclient_id = 'h'\nalgorithms = ['HS256']", "got HS256"),
     ("issuer = 'https://x'\nclient_id = 'h'\nalgorithms = ['none']", "got none"),
     ("issuer = 'https://x'\nclient_id = 'h'\nalgorithms = []", "got none"),
     ("issuer = 'https://x'\nclient_id = 'h'\nalgorithms = 'RS256'", "must be a list")],
)  # fmt: skip
def test_wrong_settings_are_refused_at_the_start(tmp_path, text, message):
    file = tmp_path / "oidc.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        read_oidc(file)


def test_settings_are_read(tmp_path):
    file = tmp_path / "oidc.toml"
    file.write_text(
        "issuer = 'https://login.hospital.org/realms/research'\nclient_id = 'heatmask'\n"
        "algorithms = ['ES256']\nclient_secret = 's'\n",
        encoding="utf-8",
    )
    read = read_oidc(file)
    assert (read.client_id, read.algorithms, read.client_secret) == ("heatmask", ("ES256",), "s")
    with pytest.raises(OptionError, match="cannot be read"):
        read_oidc(tmp_path / "missing.toml")
