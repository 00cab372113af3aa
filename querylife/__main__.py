"""`querylife <verb>`: one command line for everything that is used from a shell.

Each package registers its verbs in pyproject.toml, in the entry-point group `querylife.commands`:

    [project.entry-points."querylife.commands"]
    rank = "querylife_client.commands:rank [client]"

The function takes the arguments behind the verb and returns the exit status (querylife.exit_status). The first line of
its docstring is the verb's line in `querylife --help`. The extra in brackets has the packages that it needs.
"""

import ast
import importlib.util
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from querylife.errors import ArtifactError, ConfigError
from querylife.exit_status import run_command
from querylife.logs import configure as configure_logs

GROUP = "querylife.commands"


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else gRPC tells of every server that goes away
    configure_logs(as_json=os.environ.get("QUERYLIFE_LOG") == "json")
    if not arguments or arguments[0] in ("-h", "--help"):
        return run_command("querylife", _print_usage)
    verb = arguments[0]
    known = _verbs()
    return run_command(f"querylife {verb}" if verb in known else "querylife", lambda: _run(known, arguments))


def _verbs() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _run(verbs: dict[str, EntryPoint], arguments: list[str]) -> int:
    if not verbs:
        raise ConfigError("found no verbs in this environment, want them: pip install querylife, or -e . once more")
    if arguments[0] not in verbs:
        raise ConfigError(f"found verb {arguments[0]!r}, want one of {', '.join(verbs)}")
    entry = verbs[arguments[0]]
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        extras = ",".join(entry.extras)
        raise ArtifactError(f"found no {error.name}, want it: pip install 'querylife[{extras}]'") from error
    status: int = command(arguments[1:])
    return status


def _print_usage() -> int:
    verbs = _verbs()
    width = max(map(len, verbs), default=0)
    lines = (f"  {name:<{width}}  {_summary(entry)}" for name, entry in verbs.items())
    print("usage: querylife <verb> [options]\n", *lines, sep="\n")
    return 0


def _summary(entry: EntryPoint) -> str:
    """The first line of the function's docstring, from its source: importing every package would take seconds."""
    spec = importlib.util.find_spec(entry.module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry.attr)
    docstring = next((ast.get_docstring(function) for function in functions), None)
    return (docstring or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
