"""Every command ends alike: 1 for an error that it names, 2 for a wrong option, 130 for Ctrl-C, and no traceback."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from servers import unused_port

from querylife.errors import ConfigError, InputFileError
from querylife.exit_status import run_command
from querylife_client.testing import Delay, FakeTriton
from querylife_client.testing.faults import await_condition

ROOT = Path(__file__).parents[2]
# A process that a shell starts in the background ignores Ctrl-C, and so would its children.
LISTENING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
ENTRY = {
    "querylife": "from querylife.__main__ import main",
    "querylife-build": "from querylife_build.__main__ import main",
    "querylife-jobs": "from querylife_jobs.__main__ import main",
    "genfilt-server": "from genfilt_server.__main__ import main",
    "loadtest": "from loadtest.run import main",
}


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    script = f"{LISTENING}{ENTRY[name]}; raise SystemExit(main())"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and stderr."""
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("querylife", ["serve", "--grpc-port", "70000"], "found gRPC port 70000, want 1 to 65535"),
        ("querylife", ["serve", "--tls-key", "key.pem"], "--tls-certificate and --tls-key: found one, want both"),
        ("querylife", ["embed", "red", "--address", "nonsense"], "address: found 'nonsense', want host:port"),
        ("querylife", ["embed", "red", "--timeout-s", "0"], "timeout_s: found 0.0, want a positive"),
        ("querylife", ["gateway", "--max-items", "0"], "max_items: found 0, want more than 0"),
        ("querylife", ["gateway", "--triton", "nonsense"], "address: found 'nonsense', want host:port"),
        ("querylife", ["search", "red", "--store", "nonsense:x"], "store: found 'nonsense:x', want "),
        ("querylife", ["demo", "--top-k", "0"], "--top-k: found 0, want at least 1"),
        ("querylife", ["demo", "--queries", ";"], "--queries: found ';', want a file, or queries"),
        ("querylife", ["nonsense"], "found verb 'nonsense', want one of "),
        ("querylife-build", ["engines", "--optimization-level", "9"], "optimization_level: found 9, want 0 to 5"),
        ("querylife-jobs", ["embed", "c.csv", "o.parquet", "--max-in-flight", "0"], "--max-in-flight: found 0"),
        ("querylife-jobs", ["embed", "c.csv", "o.parquet", "--token-file", "gone"], "gone: found no such file"),
        ("genfilt-server", ["--max-waiting", "0"], "--max-waiting: found 0, want at least 1"),
        ("genfilt-server", ["--dtype", "int8"], "--dtype: found 'int8', want one of auto, bfloat16, float16, float32"),
        ("genfilt-server", ["--port", "70000"], "--port: found 70000, want 0 to 65535"),
        ("genfilt-server", ["--token-file", "gone"], "gone: cannot be read"),
        ("loadtest", ["steady", "--workers", "0"], "--workers: found 0, want at least 1"),
        ("loadtest", ["steady", "--address", "nonsense"], "--address: address: found 'nonsense'"),
    ],
)
def test_a_wrong_option_is_exit_status_two_and_one_line(name: str, arguments: list[str], complaint: str) -> None:
    status, stderr = ended(start(name, *arguments))
    assert status == 2, stderr
    assert complaint in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


def test_a_wrong_training_option_is_a_config_error() -> None:
    from querylife.training.run import TrainingConfig  # noqa: PLC0415  # torch takes seconds to import

    for wrong in ({"batch": 1}, {"steps": 0}, {"filter": "perhaps"}, {"modalities": "smell"}):
        with pytest.raises(ConfigError, match="want"):
            TrainingConfig(**wrong)


@pytest.mark.parametrize("name", ["querylife", "querylife-jobs", "loadtest"])
def test_ctrl_c_in_a_call_is_exit_status_130(name: str, tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.csv"
    catalogue.write_text("id,title\n1,red dress\n")
    scenario = tmp_path / "short.toml"
    scenario.write_text("seed = 1\nstages = [{ seconds = 60, arrivals_per_s = 5 }]\nmix = { Shopper = 1 }\n")
    with FakeTriton() as fake:
        fake.script(*[Delay(600)] * 1000)
        arguments = {
            "querylife": ["rank", "red", "--catalog", str(catalogue), "--address", fake.address],
            "querylife-jobs": ["embed", str(catalogue), str(tmp_path / "out.parquet"), "--server", fake.address],
            "loadtest": [str(scenario), "--address", fake.address, "--out", str(tmp_path)],
        }
        process = start(name, *arguments[name])
        try:
            assert await_condition(lambda: len(fake.received) > 0, timeout_s=120)
        finally:
            process.send_signal(signal.SIGINT)
            status, stderr = ended(process)
    assert status == 130, stderr
    assert f"{name}{' rank' if name == 'querylife' else ''}: interrupted" in stderr.splitlines()
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("name", "arguments", "file"),
    [
        ("querylife-build", ["check", "--repository"], "engine.lock.json"),
        ("genfilt-server", ["--token-file"], ""),
    ],
)
def test_ctrl_c_while_a_file_is_read_is_exit_status_130(
    name: str, arguments: list[str], file: str, tmp_path: Path
) -> None:
    pipe = tmp_path / (file or "token")
    os.mkfifo(pipe)
    process = start(name, *arguments, str(tmp_path if file else pipe))
    with pipe.open("w"):  # opens once the command does, which then waits for its content
        process.send_signal(signal.SIGINT)
        status, stderr = ended(process)
    assert status == 130, stderr
    assert stderr.splitlines()[-1] == f"{name}: interrupted"
    assert "Traceback" not in stderr


def test_ctrl_c_before_a_server_is_ready_is_exit_status_130() -> None:
    process = start("querylife", "serve", "--grpc-port", str(unused_port()), "--metrics-port", "0")
    try:
        assert await_condition(lambda: bool(psutil.Process(process.pid).children()), timeout_s=120)
    finally:
        process.send_signal(signal.SIGINT)
        status, stderr = ended(process)
    assert status == 130, stderr
    assert "Traceback" not in stderr


def raising(error: BaseException) -> Callable[[], Any]:
    def command() -> Any:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("wrong"), 2),
        (InputFileError("wrong"), 1),
        (BrokenPipeError(), 1),
        (KeyboardInterrupt(), 130),
        (ExceptionGroup("two", [ExceptionGroup("one", [InputFileError("wrong")]), ConfigError("later")]), 1),
    ],
)
def test_each_error_has_its_exit_status(
    error: BaseException, status: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.dup(1), "w") as stdout:  # a command may replace its descriptor
        monkeypatch.setattr(sys, "stdout", stdout)
        assert run_command("command", raising(error)) == status
    said = capfd.readouterr().err
    assert said == {"BrokenPipeError": "", "KeyboardInterrupt": "command: interrupted\n"}.get(
        type(error).__name__, "command: wrong\n"
    )


def test_what_nobody_expected_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command("command", raising(ZeroDivisionError()))
    with pytest.raises(ExceptionGroup):
        run_command("command", raising(ExceptionGroup("both", [InputFileError("wrong"), ZeroDivisionError()])))
