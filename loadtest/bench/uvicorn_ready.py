"""uvicorn, which tells the bench on stdout when it answers."""

from typing import Any

import uvicorn


class Announcing(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print("ready", flush=True)


def serve(app: Any, port: int) -> None:
    Announcing(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")).run()
