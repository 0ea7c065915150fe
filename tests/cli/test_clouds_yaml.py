"""clouds.yaml: our entry is kept current, everybody else's words are kept."""

from pathlib import Path

import msgspec
import pytest

from api.cli import clouds_yaml
from bus.config import Settings

THEIRS = """\
# my clouds
clouds:
  work:   # the real one
    auth: {auth_url: "https://example.org", password: 'x'}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "openstack" / "clouds.yaml"
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Settings:
    (tmp_path / "home").mkdir()
    return Settings(home=tmp_path / "home")


def test_a_file_that_was_not_there_is_made_for_its_owner_only(file, ours):
    clouds_yaml.write(ours, "secret")
    assert "auth_url: http://127.0.0.1:8774/identity/v3" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert clouds_yaml.owner(file) == str(ours.home)


def test_other_entries_and_comments_stay_as_they_are(file, ours):
    file.parent.mkdir()
    file.write_text(THEIRS)
    clouds_yaml.write(ours, "secret")
    text = file.read_text()
    assert text.startswith(THEIRS)
    assert "cumulog:" in text


def test_our_entry_follows_the_cloud_and_keeps_what_the_user_added(file, ours):
    clouds_yaml.write(ours, "first")
    file.write_text(
        file.read_text().replace("    interface: public\n", "    interface: public\n    verify: false # mine\n")
    )
    clouds_yaml.write(msgspec.structs.replace(ours, listen="127.0.0.1:9"), "second")
    text = file.read_text()
    assert "127.0.0.1:9/identity" in text
    assert "second" in text
    assert "verify: false # mine" in text


@pytest.mark.parametrize(
    "text",
    ["clouds:\n  cumulog: {auth: {auth_url: http://elsewhere}}\n", "clouds:\n  cumulog:\n    cumulog_home: /other\n"],
)
def test_an_entry_somebody_else_wrote_is_not_touched(file, ours, text):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(clouds_yaml.Foreign, match="cumulog"):
        clouds_yaml.write(ours, "secret")
    assert file.read_text() == text
    assert "secret" in (ours.home / "clouds.yaml").read_text()


@pytest.mark.parametrize("text", ["clouds: [", "- a\n- list\n", "clouds: 3\n"])
def test_a_file_that_is_not_what_it_should_be_is_not_touched(file, ours, text):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(clouds_yaml.Foreign):
        clouds_yaml.write(ours, "secret")
    assert file.read_text() == text


def test_a_link_stays_a_link(file, ours, tmp_path):
    file.parent.mkdir()
    real = tmp_path / "real.yaml"
    real.write_text(THEIRS)
    file.symlink_to(real)
    clouds_yaml.write(ours, "secret")
    assert file.is_symlink()
    assert "cumulog" in real.read_text()
