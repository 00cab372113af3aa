"""Every option of querylife train says what it is, and defaults stand in the configuration alone."""

import dataclasses

import pytest

from querylife.training.run import TrainingConfig
from querylife.training.train import parse


def test_every_option_has_a_help_text_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(TrainingConfig):
        assert "--" + field.name.replace("_", "-") in shown
        assert field.metadata["help"] in shown


def test_options_change_what_they_name() -> None:
    assert parse([]) == TrainingConfig()
    assert parse(["--steps", "7", "--no-bfloat16", "--text-rate", "1e-3"]) == TrainingConfig(
        steps=7, bfloat16=False, text_rate=1e-3
    )
