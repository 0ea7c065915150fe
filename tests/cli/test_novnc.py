"""noVNC is there after `up`, wherever it came from; and a cloud without it says what to do."""

import pytest

from api.cli import novnc
from api.compute import console_proxy
from bus.config import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path, novnc=tmp_path / "nowhere")


@pytest.mark.live
def test_it_is_unpacked_into_the_home_once(settings, capsys):
    novnc.prepare(settings)
    folder = console_proxy.novnc(settings)
    assert folder is not None, capsys.readouterr().out
    assert folder.is_relative_to(settings.home)
    assert (folder / "core" / "rfb.js").is_file()
    assert [it.name for it in settings.home.iterdir()] == ["novnc"]
    capsys.readouterr()
    novnc.prepare(settings)
    assert capsys.readouterr().out == ""


def test_where_it_is_installed_nothing_is_fetched(settings, capsys):
    settings.novnc.mkdir()
    (settings.novnc / "vnc_lite.html").write_text("<html>")
    novnc.prepare(settings)
    assert console_proxy.novnc(settings) == settings.novnc
    assert capsys.readouterr().out == ""


def test_without_apt_somebody_is_told_what_to_do(settings, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(settings.home))
    novnc.prepare(settings)
    assert console_proxy.novnc(settings) is None
    assert "apt-get install novnc" in capsys.readouterr().out
