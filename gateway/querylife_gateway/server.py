"""One gateway process: listens, says when it is ready, drains."""

import asyncio
import logging
import math
import signal
import socket
from contextlib import suppress

import uvicorn

from querylife.certificates import CertificateFiles
from querylife.errors import UnavailableError
from querylife_gateway.app import create_app, open_gateway
from querylife_gateway.config import GatewayConfig
from querylife_gateway.endpoint import Gateway
from querylife_gateway.protocol import time_limited
from querylife_gateway.site import keep_index_fresh

RENEWAL_S = 2.0
KEEP_ALIVE_S = 75  # longer than usual load balancers', which would else send to a connection that is just being closed


async def serve(config: GatewayConfig, *, greeting: str = "ready") -> None:
    """Print the greeting and the address when the model server answers; serve until SIGTERM or SIGINT.

    Raises UnavailableError where the address cannot be listened on.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a line for each malformed request would fill the disk
    listener = _listen(config.host, config.port)
    async with open_gateway(config) as gateway:
        server = uvicorn.Server(_uvicorn_config(config, gateway))
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises what it caught once more at its end
            signal.signal(number, lambda *_: None)
        tasks = [
            asyncio.create_task(gateway.model_server.watch()),
            asyncio.create_task(keep_index_fresh(gateway)),
            asyncio.create_task(_renew_certificate(config, server)),
            asyncio.create_task(_announce(greeting, config, gateway, server, listener)),
        ]
        try:
            await server.serve(sockets=[listener])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def _uvicorn_config(config: GatewayConfig, gateway: Gateway) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(gateway),
        http=time_limited(config.header_timeout_s, config.stall_timeout_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=config.max_connections,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(config.drain_s),
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
    )


async def _renew_certificate(config: GatewayConfig, server: uvicorn.Server) -> None:
    """New connections get a renewed certificate; those that are open stay."""
    if config.tls_certificate is None or config.tls_key is None:
        return
    files = CertificateFiles(config.tls_certificate, config.tls_key)
    while True:
        await asyncio.sleep(RENEWAL_S)
        if server.config.ssl is not None and await asyncio.to_thread(files.renewed):
            server.config.ssl.load_cert_chain(files.certificate, files.key)


async def _announce(
    greeting: str, config: GatewayConfig, gateway: Gateway, server: uvicorn.Server, listener: socket.socket
) -> None:
    await gateway.model_server.became_ready.wait()
    while not server.started:
        await asyncio.sleep(0.01)
    scheme = "https" if config.tls_key else "http"
    host = f"[{config.host}]" if ":" in config.host else config.host
    with suppress(OSError):  # nobody reads it any more
        print(f"{greeting} {scheme}://{host}:{listener.getsockname()[1]}", flush=True)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UnavailableError(f"{host}:{port}: cannot listen: {error}") from error
