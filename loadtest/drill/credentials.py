"""Certificates and a token for the stack of a drill: an authority, and files that a fault may replace."""

import datetime
import ipaddress
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from querylife_client import ClientConfig, Tls

NAME = "localhost"
VALID = datetime.timedelta(days=30)  # longer than a clock jumps
EXPIRED = datetime.timedelta(seconds=-1)


@dataclass(frozen=True)
class Files:
    """PEM files of one server."""

    certificate: Path
    key: Path


class Credentials:
    """One authority and one token for all servers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "drill")])
        self.authority, self.token_file = folder / "authority.pem", folder / "token"
        certificate = self._builder(self._name, self._key, VALID)
        certificate = certificate.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        signed = certificate.sign(self._key, hashes.SHA256())
        self.authority.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        self.token_file.write_text(secrets.token_urlsafe())

    def files(self, name: str) -> Files:
        """Of a new server."""
        files = Files(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        self.renew(files)
        return files

    def renew(self, files: Files, lasts: datetime.timedelta = VALID) -> None:
        """Write another certificate with another key. lasts: from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, files.certificate.stem)])
        certificate = self._builder(subject, key, lasts)
        certificate = certificate.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = certificate.sign(self._key, hashes.SHA256())
        encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        files.key.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
        files.certificate.write_bytes(signed.public_bytes(encoding))

    def client_config(self, token: str | None = None) -> ClientConfig:
        """token: None for the right one."""
        right = self.token_file.read_text()
        return ClientConfig(tls=Tls(self.authority, server_name=NAME), token=token or right)

    def https(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        return builder.not_valid_before(now - VALID).not_valid_after(now + lasts)
