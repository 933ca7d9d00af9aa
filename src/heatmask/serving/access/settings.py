"""What `heatmask serve` is given on who may reach it."""

import ipaddress
import ssl
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from heatmask.errors import OptionError


@dataclass(frozen=True)
class OidcSettings:
    """A provider of OpenID Connect, such as Keycloak, and how its tokens are read.

    Parameters
    ----------
    issuer
        Address of the provider's realm, as in ``https://login.hospital.org/realms/research``.
    client_id
        The server's name at the provider.
    audience
        What the tokens' ``aud`` must contain, by default `client_id`.
    client_secret
        Only for clients that have one.
    name_claim
        The claim that holds the user's name.
    role_claim
        The claim that holds the roles; dots lead into objects.
    role_prefix
        What our roles begin with there: ``heatmask-admin`` is `Role.ADMIN`.
    algorithms
        Signatures that are accepted; only those with a public key are possible.
    """

    issuer: str
    client_id: str
    audience: str = ""
    client_secret: str = ""
    name_claim: str = "preferred_username"
    role_claim: str = "realm_access.roles"
    role_prefix: str = "heatmask-"
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256")

    def __post_init__(self) -> None:
        """Check the values."""
        for name in (field.name for field in fields(self)):
            kind = tuple if name == "algorithms" else str
            if not isinstance(getattr(self, name), kind):
                raise OptionError(f"{name} must be a {'list' if kind is tuple else 'text'}.")
        check_provider_url("issuer", self.issuer)
        unsafe = set(self.algorithms) - ASYMMETRIC
        if unsafe or not self.algorithms:
            raise OptionError(
                f"algorithms must be of {', '.join(sorted(ASYMMETRIC))}, "
                f"got {', '.join(sorted(map(str, unsafe))) or 'none'}."
            )


ASYMMETRIC = {
    f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512)
} | {"EdDSA", "Ed25519"}  # fmt: skip


@dataclass(frozen=True)
class AccessSettings:
    """Where the server listens, and what protects it there.

    Parameters
    ----------
    host
        Address to listen on.
    allowed_hosts
        Names, beside its addresses, under which the server may be called.
    tls_cert, tls_key
        Certificate chain and private key (PEM).
    proxies
        Addresses or networks of the proxies in front; they alone may connect, and be believed
        whom they speak for.
    token_hours
        How long a log-in lasts.
    oidc
        A provider of OpenID Connect in place of our own passwords.

    Raises
    ------
    OptionError
        A value is not of its kind, or a file cannot be read.
    """

    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    proxies: tuple[str, ...] = ()
    token_hours: float = 12.0
    oidc: OidcSettings | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise OptionError("--tls-cert and --tls-key belong together; one of them is missing.")
        if self.tls_cert:
            _check_certificate(self.tls_cert, self.tls_key)
        for proxy in self.proxies:
            _check_proxy(proxy)
        if not 0 < self.token_hours <= 24 * 30:
            raise OptionError(
                f"--token-hours must be above 0 and at most 720, got {self.token_hours:g}."
            )

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach the server, directly or through a proxy."""
        return bool(self.proxies) or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's own, which no other machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_oidc(file: Path) -> OidcSettings:
    """Read the settings of OpenID Connect from a TOML file.

    Raises
    ------
    OptionError
        The file cannot be read, or a setting in it is unknown, missing or wrong.
    """
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"--oidc {file} cannot be read as TOML: {error}.") from error
    known = {field.name for field in fields(OidcSettings)}
    if unknown := values.keys() - known:
        raise OptionError(
            f"--oidc {file}: unknown {', '.join(sorted(unknown))}. "
            f"Possible: {', '.join(sorted(known))}."
        )
    if missing := {"issuer", "client_id"} - values.keys():
        raise OptionError(f"--oidc {file} must give {' and '.join(sorted(missing))}.")
    if isinstance(values.get("algorithms"), list):
        values["algorithms"] = tuple(values["algorithms"])
    try:
        return OidcSettings(**values)
    except OptionError as error:
        raise OptionError(f"--oidc {file}: {error}") from error


def check_provider_url(name: str, url: object) -> None:
    """Refuse an address of a provider to which passwords would travel unencrypted.

    Raises
    ------
    OptionError
        It is not ``https://...``, nor ``http://`` on this machine.
    """
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return
    if parts.scheme != "https" or not parts.hostname:
        raise OptionError(f"{name} must be an https address, got {url!r}.")


def _check_certificate(cert: Path, key: Path | None) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise OptionError(
            f"--tls-cert {cert} and --tls-key {key} must be a certificate chain and its private "
            f"key in PEM form: {error}."
        ) from error


def _check_proxy(text: str) -> None:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise OptionError(
            f"--behind-proxy must be an address or a network such as 172.28.0.0/24: {error}."
        ) from error
    if network.prefixlen == 0:
        raise OptionError(f"--behind-proxy {text} would trust everybody. Name the proxy alone.")
