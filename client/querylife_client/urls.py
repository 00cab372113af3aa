"""Pictures from the web, through a guard: for code that is handed URLs by strangers.

    Product(title="red dress", image=fetch_image("https://shop.example/dress.jpg"))

A URL may name the inside of a network. Only http and https on their own ports are fetched; the host's addresses must
all be public; the connection goes to the very address that was checked, so a name cannot change its mind in between;
each redirect passes the same checks; bytes and time are bounded.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from querylife.contract import MAX_IMAGE_BYTES
from querylife.errors import ItemError, ItemFault

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class UrlGuard:
    """What may be fetched. allowed_hosts: only these, where given; they may then be private and on any port."""

    max_bytes: int = MAX_IMAGE_BYTES
    timeout_s: float = 5.0
    max_redirects: int = 3
    allowed_hosts: frozenset[str] | None = None


def fetch_image(url: str, guard: UrlGuard | None = None) -> bytes:
    """The bytes behind a URL. Raises ItemError when the guard forbids it or it cannot be had in time."""
    guard = guard or UrlGuard()
    end = time.monotonic() + guard.timeout_s
    for _ in range(guard.max_redirects + 1):
        content_or_location = _fetch_once(url, guard, end)
        if isinstance(content_or_location, bytes):
            return content_or_location
        url = urljoin(url, content_or_location)
    raise _refused(f"found more than {guard.max_redirects} redirects")


def _fetch_once(url: str, guard: UrlGuard, end: float) -> bytes | str:
    """The content, or the URL that a redirect names."""
    parts, address, port = _checked(url, guard)
    connection = _connection(parts, address, port, _remaining_s(end))
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"host": parts.netloc, "accept": "image/*", "connection": "close"})
        with connection.getresponse() as response:
            if response.status in _REDIRECTS and response.headers.get("location"):
                return str(response.headers["location"])
            if response.status != http.HTTPStatus.OK:
                raise _refused(f"found status {response.status}, want 200")
            return _read(response, connection, guard, end)
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise _refused(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _checked(url: str, guard: UrlGuard) -> tuple[SplitResult, str, int]:
    """The URL's parts, and the one address and port to connect to."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise _refused(str(error)) from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _refused(f"found scheme {parts.scheme!r}, want http or https and a host")
    if parts.username is not None:
        raise _refused("found credentials in the URL, want none")
    if guard.allowed_hosts is not None:
        if parts.hostname not in guard.allowed_hosts:
            raise _refused(f"found host {parts.hostname}, which is not among the allowed")
    elif port != _PORTS[parts.scheme]:
        raise _refused(f"found port {port}, want {_PORTS[parts.scheme]}")
    return parts, _address(parts.hostname, port, guard), port


def _address(host: str, port: int, guard: UrlGuard) -> str:
    try:
        addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise _refused(f"cannot resolve {host}: {error}") from error
    private = [address for address in addresses if not is_public(address)]
    if private and guard.allowed_hosts is None:
        raise _refused(f"{host} has the address {private[0]}, want public ones")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet, also where IPv6 wraps an IPv4 address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if inner is None and parsed in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast


def _connection(parts: SplitResult, address: str, port: int, timeout_s: float) -> http.client.HTTPConnection:
    """Goes to the address that was checked; TLS still holds the server to the URL's host name."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.connect()
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=parts.hostname)
    except OSError as error:
        connection.close()
        raise _refused(f"cannot connect: {error}") from error
    return connection


def _read(
    response: http.client.HTTPResponse, connection: http.client.HTTPConnection, guard: UrlGuard, end: float
) -> bytes:
    content = b""
    while chunk := response.read1(_CHUNK_BYTES):
        content += chunk
        if len(content) > guard.max_bytes:
            detail = f"found more than {guard.max_bytes} bytes behind the URL"
            raise ItemError(ItemFault.IMAGE_TOO_MANY_BYTES, detail)
        remaining_s = _remaining_s(end)
        if connection.sock is not None:
            connection.sock.settimeout(remaining_s)
    return content


def _remaining_s(end: float) -> float:
    remaining_s = end - time.monotonic()
    if remaining_s <= 0:
        raise ItemError(ItemFault.IMAGE_TOO_SLOW, "the URL did not answer in time")
    return remaining_s


def _refused(detail: str) -> ItemError:
    return ItemError(ItemFault.IMAGE_NOT_DECODABLE, f"URL not fetched: {detail}")
