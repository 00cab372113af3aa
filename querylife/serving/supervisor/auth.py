"""Authentication of Triton: TLS, client certificates, a bearer token, and the supervisor's own credentials.

Triton compares a header with a fixed value, the whole "Bearer <token>"; querylife_client sends that header.
"""

import datetime
import hashlib
import logging
import random
import re
import shutil
import ssl
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from querylife.contract import TOKEN_HEADER
from querylife.errors import ArtifactError, ConfigError

log = logging.getLogger(__name__)

_TRITONS_PREFIX = "triton-grpc-protocol-"
_GUARDED = "inference,metadata,model-config,statistics"  # health stays open: probes carry no token
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750
_SOON = datetime.timedelta(days=14)


@dataclass(frozen=True)
class AccessConfig:
    """tls_certificate, tls_key: the server's (PEM). tls_client_authority: callers must show a certificate that it
    signed (PEM). token_file: callers must show this file's text as a bearer token. All are read at every start of
    Triton, which is restarted when they change.
    """

    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_authority: Path | None = None
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("--tls-certificate and --tls-key: found one, want both or neither")
        if self.tls_client_authority is not None and self.tls_certificate is None:
            raise ConfigError("--tls-client-authority: found no --tls-certificate, want one")

    @property
    def files(self) -> list[Path]:
        """Those that are named."""
        named = (self.tls_certificate, self.tls_key, self.tls_client_authority, self.token_file)
        return [path for path in named if path is not None]


class Renewal:
    """Notices that files of an AccessConfig have changed, once they can be used.

    Servers that share the files change one after another: each waits a random time, up to spread_s seconds.
    """

    PERIOD_S = 2.0

    def __init__(self, config: AccessConfig, spread_s: float) -> None:
        self._config = config
        self._wait_s = random.uniform(0, spread_s)
        self._used = self._refused = _digest(config.files)
        self._next_look = time.monotonic() + self.PERIOD_S
        self._due: float | None = None

    def is_due(self) -> bool:
        """Call often: the files are read every PERIOD_S seconds."""
        now = time.monotonic()
        if self._due is not None:
            return now >= self._due
        if not self._config.files or now < self._next_look:
            return False
        self._next_look = now + self.PERIOD_S
        if self._are_new_and_usable():
            log.info("renewed credentials are used in %.0f s", self._wait_s)
            self._due = now + self._wait_s
        return self._due is not None and now >= self._due

    def _are_new_and_usable(self) -> bool:
        digest = _digest(self._config.files)
        if digest in (self._used, self._refused):
            return False
        try:
            with Access(self._config):
                return True
        except ArtifactError as error:  # a certificate whose key has not come yet
            log.warning("renewed credentials cannot be used: %s", error)
            self._refused = digest
            return False


def _digest(files: Sequence[Path]) -> bytes:
    """Of the files' contents; a missing one counts as empty."""
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes() if path.is_file() else b""
        digest.update(len(content).to_bytes(8) + content)
    return digest.digest()


class Access:
    """The access rules of one server process. Use as a context manager; keep it open while the server runs.

    options: for tritonserver. secrets: those among them that nobody else may see. metadata: of the supervisor's calls.
    """

    def __init__(self, config: AccessConfig) -> None:
        """Raises ArtifactError when a file cannot be used: unreadable, expired, or a key of another certificate."""
        self.options: list[str] = []
        self.secrets: list[str] = []
        self.metadata: tuple[tuple[str, str], ...] = ()
        self._credentials: grpc.ChannelCredentials | None = None
        self._channel_options: list[tuple[str, object]] = []
        self._folder: Path | None = None
        if config.token_file is not None:
            self._require_token(read_token(config.token_file))
        if config.tls_certificate is not None and config.tls_key is not None:
            self._encrypt(config.tls_certificate, config.tls_key, config.tls_client_authority)

    def __enter__(self) -> "Access":
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def channel(self, address: str, options: Sequence[tuple[str, object]] = ()) -> grpc.Channel:
        """A channel with the supervisor's own credentials. options: gRPC's."""
        if self._credentials is None:
            return grpc.insecure_channel(address, options)
        return grpc.secure_channel(address, self._credentials, [*options, *self._channel_options])

    def _require_token(self, token: str) -> None:
        header, value = TOKEN_HEADER.removeprefix(_TRITONS_PREFIX), f"Bearer {token}"
        self.options.append(f"--grpc-restricted-protocol={_GUARDED}:{header}={value}")
        self.secrets.append(token)
        self.metadata = ((TOKEN_HEADER, value),)

    def _encrypt(self, certificate: Path, key: Path, client_authority: Path | None) -> None:
        name = _check(certificate, key)
        self.options += [f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"]
        # The supervisor trusts this very certificate, by whatever name it goes and whoever signed it.
        self._channel_options = [("grpc.ssl_target_name_override", name)]
        if client_authority is None:
            self.options.append("--grpc-use-ssl=true")
            self._credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
            return
        own_certificate, own_key = _self_signed_certificate()
        self._folder = Path(tempfile.mkdtemp(prefix="querylife-"))
        trusted = self._folder / "authorities.pem"
        trusted.write_bytes(_read(client_authority) + b"\n" + own_certificate)
        self.options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={trusted}"]
        self._credentials = grpc.ssl_channel_credentials(certificate.read_bytes(), own_key, own_certificate)


def read_token(path: Path) -> str:
    """Raises ArtifactError when the file holds no token."""
    token = _read(path).decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(token):
        raise ArtifactError(f"{path}: found no token, want one of letters, digits and ._~+/=- only")
    return token


def _check(certificate: Path, key: Path) -> str:
    """Returns a name that the certificate holds. Raises ArtifactError when the pair cannot serve."""
    from cryptography import x509  # noqa: PLC0415  # a server without TLS needs none

    try:
        loaded = x509.load_pem_x509_certificate(_read(certificate))
        names: Any = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        detail = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{certificate}, {key}: found no certificate with names and its key: {detail}") from error
    now, end = datetime.datetime.now(datetime.UTC), loaded.not_valid_after_utc
    if not loaded.not_valid_before_utc <= now <= end:
        raise ArtifactError(
            f"{certificate}: found a certificate for {loaded.not_valid_before_utc:%F %T} to {end:%F %T} UTC, "
            f"want one for now, {now:%F %T}: renew it"
        )
    if end - now < _SOON:
        log.warning("%s expires at %s UTC: renew it", certificate, f"{end:%F %T}")
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return str([*names.get_values_for_type(x509.DNSName), *addresses][0]).replace("*", "supervisor")


def _self_signed_certificate() -> tuple[bytes, bytes]:
    """A certificate that signs itself, and its key (PEM), for the supervisor's own calls. The key is never written."""
    from cryptography import x509  # noqa: PLC0415  # as above
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "querylife supervisor")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return certificate.public_bytes(encoding), key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
