"""Diagnoses why a server closed a new connection.

gRPC says "Socket closed" whether the server wants TLS, wants another client certificate, or is just going away. A TLS
handshake of our own tells: a server that takes it wants TLS; one that takes it and then hangs up wants a certificate.
"""

import socket
import ssl

from querylife_client.config import Tls
from querylife_client.errors import CredentialsError, Failure

_MAX_WAIT_S = 2.0


def is_hang_up(failure: Failure) -> bool:
    """Whether the server closed the connection before it answered anything."""
    text = str(failure.error)
    is_connecting = "failed to connect to all addresses" in text or "connections to all backends failing" in text
    return is_connecting and ("closed" in text or "reset" in text)


def explained(failure: Failure, address: str, tls: Tls | None, timeout_s: float) -> Failure:
    """The same failure, or a CredentialsError that says what the server wants. Connects up to twice."""
    try:
        for _ in range(2):  # one that is going away may take a handshake and hang up, but hardly two
            wish = _wish(address, tls, min(_MAX_WAIT_S, max(0.01, timeout_s)))
            if wish is None:
                return failure
    except (OSError, ValueError):  # nobody there, no answer, an address that only gRPC can read
        return failure
    error = CredentialsError(f"{address}: the server hung up: {wish}")
    error.__cause__ = failure.error.__cause__
    return Failure(error, False)


def _wish(address: str, tls: Tls | None, timeout_s: float) -> str | None:
    """What the server wants that it does not get. Raises OSError when it does not say."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; gRPC does the verifying
    context.set_alpn_protocols(["h2"])
    if tls is not None and tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    host, _, port = address.rpartition(":")
    there = (host.strip("[]"), int(port))
    with socket.create_connection(there, timeout_s) as connection, context.wrap_socket(connection) as encrypted:
        if tls is None:
            return "it wants TLS: give ClientConfig(tls=Tls(...))"
        if encrypted.recv(1):
            return None
    if tls.certificate is None:
        return "it wants a client certificate: give Tls(certificate=..., key=...)"
    return f"it does not accept the client certificate {tls.certificate}: renew it, or have its authority trusted"
