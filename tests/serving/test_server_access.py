"""What `querylife serve` is told about access is checked before a server starts."""

from pathlib import Path

import pytest
from client.certificates import DAY, Authority

from querylife.errors import ArtifactError, ConfigError
from querylife.serving.supervisor.auth import Access, AccessConfig, read_token


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ConfigError, match="want both or neither"):
        AccessConfig(tls_certificate=Path("server.pem"))
    with pytest.raises(ConfigError, match="found no --tls-certificate"):
        AccessConfig(tls_client_authority=Path("ca.pem"))


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    expired = authority.issue("expired", lasts=-DAY)
    with pytest.raises(ArtifactError, match="renew it"):
        Access(AccessConfig(expired.certificate, expired.key))


def test_a_certificate_that_runs_out_soon_is_a_warning(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    for name, lasts, warned in (("long", 100 * DAY, False), ("short", DAY, True)):
        issued = authority.issue(name, lasts=lasts)
        Access(AccessConfig(issued.certificate, issued.key))
        assert ("renew it" in caplog.text) is warned


def test_the_key_of_another_certificate_is_refused(authority: Authority) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(ArtifactError, match=r"one\.pem, .*other\.key"):
        Access(AccessConfig(one.certificate, other.key))


@pytest.mark.parametrize("text", ["", "two words", "naïve", "line\nline"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="found no token"):
        read_token(path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_token(tmp_path / "missing")


def test_what_was_written_for_triton_is_removed(authority: Authority) -> None:
    issued = authority.issue("server")
    with Access(AccessConfig(issued.certificate, issued.key, authority.certificate)) as access:
        (trusted,) = [Path(option.partition("=")[2]) for option in access.options if "root-cert" in option]
        assert authority.certificate.read_text() in trusted.read_text()
        assert "PRIVATE" not in trusted.read_text()
    assert not trusted.parent.exists()
