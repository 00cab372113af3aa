"""What gRPC connects to and how: targets, channel options and credentials, shared by both clients."""

import ipaddress
from pathlib import Path

import grpc

from querylife.errors import ConfigError
from querylife_client.config import ClientConfig, Tls

_WINDOW_BYTES = 4 * 1024 * 1024
_ROUND_ROBIN = '{"loadBalancingConfig": [{"round_robin": {}}]}'
_RESOLUTION_MS = 1000  # at least, between two look-ups of a name; gRPC's own 30 s are long for a server that is new
_MAX_MESSAGE_BYTES = 2**31 - 1  # the answer's size is the request's, which is limited


def channel_target(address: str) -> str:
    """What gRPC connects to: host:port, IP addresses with ports separated by commas, or one of gRPC's own addresses
    (dns:///host:port, unix:path).

    Raises ConfigError for anything else.
    """
    if address.startswith(("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "xds:", "passthrough:")):
        return address
    parts = address.split(",")
    for part in parts:
        host, _, port = part.rpartition(":")
        if not host or not port.isdecimal() or "/" in part or part.split() != [part]:
            raise ConfigError(f"address: found {address!r}, want host:port")
    if len(parts) == 1:
        return address
    versions = {_ip_version(part) for part in parts}
    if len(versions) > 1 or None in versions:
        raise ConfigError(f"address: found {address!r}, want IP addresses in a list, or one name that stands for all")
    return f"ipv{versions.pop()}:{address}"


def _ip_version(part: str) -> int | None:
    """4 or 6; None for a name."""
    try:
        return ipaddress.ip_address(part.rpartition(":")[0].strip("[]")).version
    except ValueError:
        return None


def channel_options(config: ClientConfig) -> list[tuple[str, object]]:
    """A lost server is noticed by keepalive and looked for again within a second, not gRPC's two minutes.

    Requests go to the addresses of a name or a list in turn. A name is looked up again when a connection ends.
    """
    options: list[tuple[str, object]] = [
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.keepalive_time_ms", int(config.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(config.keepalive_timeout_s * 1000)),
        ("grpc.http2.ping_timeout_ms", int(config.keepalive_timeout_s * 1000)),  # else one minute
        # gRPC's bandwidth probe pings with every answer, which costs time and uses up the two pings that keepalive may
        # send before servers of strict ping policy, as Triton's is, hang up. Fixed, large windows do without it.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
        ("grpc.http2.max_pings_without_data", 2),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.optimization_target", "latency"),
        ("grpc.service_config", _ROUND_ROBIN),
        ("grpc.dns_min_time_between_resolutions_ms", _RESOLUTION_MS),
    ]
    if config.tls is not None and config.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", config.tls.server_name))
    return options


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Raises OSError when a file cannot be read."""
    return grpc.ssl_channel_credentials(_read(tls.authority), _read(tls.key), _read(tls.certificate))


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
