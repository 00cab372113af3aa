"""`querylife gateway`: HTTP in front of the model server, in the foreground. `querylife gateway keys`: its API keys."""

import argparse
import asyncio
import logging
from pathlib import Path

from querylife_gateway.config import GatewayConfig
from querylife_gateway.keys import create_key, read_keys, revoke_key

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main(arguments: list[str]) -> int:
    """Serve HTTP in front of the model server."""
    if arguments[:1] == ["keys"]:
        return keys(arguments[1:])
    config = _config(arguments)
    if config.keys is None and config.host not in _LOOPBACK:
        log.warning("everybody who reaches %s:%d may call: no --keys", config.host, config.port)
    import uvloop  # noqa: PLC0415  # `keys` needs no server

    from querylife_gateway.server import serve  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config))
    return 0


def keys(arguments: list[str]) -> int:
    """Add, revoke or list API keys."""
    parser = argparse.ArgumentParser(prog="querylife gateway keys", description=keys.__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    for action, purpose in (("add", "make a key and print it"), ("revoke", "end a key"), ("list", "names and quotas")):
        command = actions.add_parser(action, help=purpose)
        command.add_argument("--file", type=Path, required=True, help="the gateway's --keys")
        if action != "list":
            command.add_argument("name", help="whose key it is")
        if action == "add":
            quota = "texts, documents and pictures; 0: no limit (%(default)s)"
            command.add_argument("--items-per-minute", type=int, default=0, metavar="N", help=quota)
    options = parser.parse_args(arguments)
    if options.action == "add":
        if options.items_per_minute < 0:
            parser.error(f"--items-per-minute: found {options.items_per_minute}, want at least 0")
        print(create_key(options.file, options.name, options.items_per_minute))
    elif options.action == "revoke":
        revoke_key(options.file, options.name)
    else:
        for key in read_keys(options.file):
            state = f"revoked {key.revoked}" if key.revoked else "valid"
            print(f"{key.name}\t{key.items_per_minute} items/minute\tcreated {key.created}\t{state}")
    return 0


def _config(arguments: list[str]) -> GatewayConfig:
    default = GatewayConfig
    parser = argparse.ArgumentParser(prog="querylife gateway", description=__doc__)
    parser.add_argument("--triton", default=default.triton, metavar="HOST:PORT", help="the model server (%(default)s)")
    parser.add_argument("--triton-token-file", type=Path, metavar="FILE", help="its bearer token")
    parser.add_argument("--triton-authority", type=Path, metavar="PEM", help="encrypt, and trust these certificates")
    server_name = "the name in its certificate, where --triton is a list of addresses"
    parser.add_argument("--triton-server-name", metavar="NAME", help=server_name)
    stores = "search this vector store: lance:FOLDER, postgresql://HOST/DATABASE, qdrant+http://HOST:PORT, or @FILE"
    parser.add_argument("--store", metavar="URL", help=stores)
    parser.add_argument("--catalog", type=Path, metavar="FILE", help="where the search page finds pictures")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="explain scores with it (extra `train`)")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="raters judge its pairs at /label")
    parser.add_argument("--host", default=default.host, help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=default.port, help="0: any free (%(default)s)")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="API keys; without, everybody may call")
    parser.add_argument("--tls-certificate", type=Path, metavar="PEM", help="encrypt with this certificate")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="its key")
    for name, purpose in (
        ("timeout-s", "of a request that names none"),
        ("max-timeout-s", "the most that a request may ask for"),
        ("max-wait-s", "before a request that waits is refused"),
        ("header-timeout-s", "for a caller to send its header"),
        ("body-timeout-s", "for a caller to send its body"),
        ("stall-timeout-s", "in which a caller reads nothing of its answer"),
        ("drain-s", "to finish requests"),
    ):
        value = getattr(default, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=float, default=value, metavar="S", help=f"seconds {purpose} (%(default)g)"
        )
    for name, purpose in (
        ("max-items", "texts, documents, pictures in one request"),
        ("max-body-bytes", "of one request"),
        ("max-buffered-bytes", "of all request bodies in memory"),
        ("max-running", "requests worked on at once"),
        ("max-waiting", "requests that wait"),
        ("max-connections", "open connections"),
    ):
        value = getattr(default, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"{purpose} (%(default)s)")
    parser.add_argument("--no-image-urls", dest="image_urls", action="store_false", help="take data URIs only")
    hosts = "fetch pictures from this host only, private or not; may be repeated"
    parser.add_argument("--allow-image-host", dest="allowed_hosts", action="append", metavar="HOST", help=hosts)
    options = vars(parser.parse_args(arguments))
    options["allowed_hosts"] = frozenset(options["allowed_hosts"]) if options["allowed_hosts"] else None
    return GatewayConfig(**options)
