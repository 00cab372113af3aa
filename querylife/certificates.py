"""A certificate and its key in two files that are renewed while a server runs."""

import hashlib
import logging
import ssl
from pathlib import Path

from querylife.errors import ConfigError

log = logging.getLogger(__name__)


class CertificateFiles:
    """PEM files. The pair that was usable last is the one that serves."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises ConfigError when the pair cannot serve."""
        self.certificate, self.key = certificate, key
        self._digest = self._read()
        check_pair(certificate, key)

    def renewed(self) -> bool:
        """Whether the files have changed, since the last call that said so, to a pair that can serve.

        A change to one that cannot, for example before its key has come, is logged once.
        """
        try:
            digest = self._read()
            if digest == self._digest:
                return False
            self._digest = digest
            check_pair(self.certificate, self.key)
        except ConfigError as error:
            log.warning("renewed certificate is not used: %s", error)
            return False
        log.info("renewed certificate %s is used", self.certificate)
        return True

    def _read(self) -> bytes:
        try:
            contents = [path.read_bytes() for path in (self.certificate, self.key)]
        except OSError as error:
            raise ConfigError(f"TLS: cannot be read: {error}") from error
        return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).digest()


def check_pair(certificate: Path, key: Path) -> None:
    """Raises ConfigError for an expired certificate, one that is not valid yet, or a key of another certificate."""
    try:
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(certificate, key)
        client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_context.check_hostname = False
        client_context.verify_flags |= (
            ssl.VERIFY_X509_PARTIAL_CHAIN
        )  # the certificate itself is trusted, not its signer
        client_context.load_verify_locations(certificate)
        _shake_hands(server_context, client_context)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{certificate}, {key}: found no certificate that can serve: {error}") from error


def _shake_hands(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    """In memory. Raises ssl.SSLError when the client does not accept the certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    unfinished = [client, server]
    while unfinished:
        for side in list(unfinished):
            try:
                side.do_handshake()
                unfinished.remove(side)
            except ssl.SSLWantReadError:
                continue
