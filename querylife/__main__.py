"""`querylife <verb>`: one command line for everything that is used from a shell.

querylife.exit_status has the exit statuses.
"""

import importlib
import logging
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from querylife.exit_status import run_command


class Verb(NamedTuple):
    """main is "module:function", imported only when the verb is used; it takes the arguments, returns the status."""

    summary: str
    main: str


VERBS = {
    "serve": Verb("run Triton under supervision", "querylife.serving.command:main"),
    "gateway": Verb("serve HTTP in front of the model server", "querylife_gateway.command:main"),
    "demo": Verb("search a catalogue in the browser", "querylife_gateway.demo.command:main"),
    "train": Verb("train a model", "querylife.training.train:main"),
    "evaluate": Verb("measure a checkpoint", "querylife.evaluation.evaluate:main"),
    "rank": Verb("rank products for a query", "querylife_client.commands:rank"),
    "embed": Verb("embed queries or products", "querylife_client.commands:embed"),
    "score": Verb("score products for a query", "querylife_client.commands:score"),
    "search": Verb("search a vector store", "querylife_jobs.commands:search"),
    "rollout": Verb("change the model of a vector store", "querylife_jobs.commands:rollout"),
    "describe": Verb("describe products with GenFilt", "querylife_client.commands:describe"),
}


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else gRPC tells of every server that goes away
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    verb = VERBS.get(arguments[0])
    if verb is None:
        print(f"querylife: found verb {arguments[0]!r}, want one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    return run_command(f"querylife {arguments[0]}", lambda: _load(verb.main)(arguments[1:]))


def _usage() -> str:
    width = max(len(name) for name in VERBS)
    lines = (f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return "usage: querylife <verb> [options]\n\n" + "\n".join(lines)


def _load(path: str) -> Callable[[list[str]], int]:
    module, _, function = path.partition(":")
    loaded: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    return loaded


if __name__ == "__main__":
    sys.exit(main())
