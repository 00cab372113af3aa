"""Sends malformed HTTP requests to a gateway, and looks whether it still answers rightly.

    python -m loadtest.malformed_http --port 8080 --requests 100000

Raw bytes, broken HTTP, broken JSON, wrong types, wrong values, bodies cut short. Between them, one right request in a
hundred must get the same vector as at the start. Prints how many answers had which status; exit status 1 where a right
request failed, or an answer had status 500 or 502.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Callable

IN_FLIGHT = 32
PATIENCE_S = 0.1
ANSWER_S = 60.0
RIGHT = {"input": "red summer dress", "encoding_format": "base64"}
PATHS = ("/v1/embeddings", "/rerank", "/v1/search", "/v1/why", "/session", "/v1/models", "/", "/pictures/%00", "/%ff")
VALUES = (
    None,
    True,
    -1,
    0,
    1e308,
    10**40,
    "",
    "x" * 5000,
    "\ud800",
    "data:image/png;base64,%",
    [],
    [[]],
    {},
    [None],
    {"a": {}},
)
FIELDS = (
    "input",
    "query",
    "documents",
    "texts",
    "k",
    "where",
    "id",
    "key",
    "dimensions",
    "encoding_format",
    "top_n",
    "model",
)


def raw_bytes(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 300)) + b"\r\n\r\n"


def broken_head(chance: random.Random) -> bytes:
    lines = [
        b"POST /v1/embeddings HTTP/9.9",
        b"G\x00T / HTTP/1.1",
        b"POST  /rerank  HTTP/1.1",
        b"GET " + b"/a" * chance.randrange(1, 4000) + b" HTTP/1.1",
        b"POST http://[::1/ HTTP/1.1",
        b"PRI * HTTP/2.0",
    ]
    fields = [
        b"content-length: -1",
        b"content-length: 9x",
        b"transfer-encoding: chunked\r\ncontent-length: 3",
        b": x",
        b"\xff: \xff",
        b"a" * 3000 + b": b",
    ]
    return chance.choice(lines) + b"\r\n" + chance.choice(fields) + b"\r\n\r\n" + chance.randbytes(20)


def broken_json(chance: random.Random) -> bytes:
    good = json.dumps({chance.choice(FIELDS): chance.choice(VALUES[:9]) for _ in range(3)}).encode()
    kinds = [
        good[: chance.randrange(len(good))],
        good.replace(b":", b"=", 1),
        b"[" * chance.randrange(1, 20000),
        b'{"input":' * chance.randrange(1, 2000),
        chance.randbytes(chance.randrange(200)),
        b"\xef\xbb\xbf" + good,
        b'{"input": "\xff\xfe"}',
        b'{"input": NaN}',
    ]
    return post(chance, chance.choice(kinds))


def wrong_fields(chance: random.Random) -> bytes:
    body = {chance.choice(FIELDS): chance.choice(VALUES) for _ in range(chance.randrange(1, 6))}
    return post(chance, json.dumps(body).encode())


def cut_short(chance: random.Random) -> bytes:
    whole = post(chance, json.dumps(RIGHT).encode())
    return whole[: chance.randrange(1, len(whole))]


def post(chance: random.Random, body: bytes) -> bytes:
    length = chance.choice((len(body), len(body), len(body), max(0, len(body) - 1), 10**12))
    content_type = chance.choice(
        (b"application/json", b"application/json", b"text/plain", b"application/x-www-form-urlencoded")
    )
    method = chance.choice((b"POST", b"POST", b"POST", b"PUT", b"DELETE", b"PATCH"))
    head = b"%s %s HTTP/1.1\r\nhost: x\r\ncontent-type: %s\r\n" % (method, chance.choice(PATHS).encode(), content_type)
    timeout = chance.choice((b"", b"", b"x-timeout-s: nan\r\n", b"x-timeout-s: -1\r\n", b"x-timeout-s: 1e999\r\n"))
    return head + timeout + b"content-length: %d\r\n\r\n" % length + body


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    raw_bytes,
    broken_head,
    broken_json,
    wrong_fields,
    wrong_fields,
    cut_short,
)


async def send(port: int, request: bytes) -> str:
    """The status of the answer; "closed" where the connection ended without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = await reader.readline()
        except TimeoutError:  # the gateway waits for the rest of the request
            writer.write_eof()
            async with asyncio.timeout(ANSWER_S):
                line = await reader.readline()
        return line.split(b" ")[1].decode("ascii") if line.startswith(b"HTTP/1.1 ") else "closed"
    except ConnectionError:
        return "closed"
    except TimeoutError:
        return "no answer"
    finally:
        writer.close()


async def right_answer(port: int) -> object:
    """The vector of the right request; None where there is none."""
    body = json.dumps(RIGHT).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.read()
    writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])["data"] if b" 200 " in answer[:20] else None


async def run(port: int, requests: int, seed: int) -> tuple[Counter[str], int]:
    """Statuses, and how many right requests failed."""
    statuses: Counter[str] = Counter()
    want, failed = await right_answer(port), 0
    assert want is not None, "the gateway does not answer a right request"
    numbers = iter(range(requests))

    async def caller(chance: random.Random) -> None:
        nonlocal failed
        for number in numbers:
            statuses[await send(port, chance.choice(KINDS)(chance))] += 1
            if number % 100 == 0:
                failed += await right_answer(port) != want

    await asyncio.gather(*(caller(random.Random(f"{seed} {number}")) for number in range(IN_FLIGHT)))
    return statuses, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=8080, help="of the gateway (%(default)s)")
    parser.add_argument("--requests", type=int, default=100_000, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    options = parser.parse_args()
    statuses, failed = asyncio.run(run(options.port, options.requests, options.seed))
    print(json.dumps({"statuses": dict(statuses.most_common()), "right_requests_failed": failed}))
    return 1 if failed or statuses["500"] or statuses["502"] or statuses["no answer"] else 0


if __name__ == "__main__":
    sys.exit(main())
