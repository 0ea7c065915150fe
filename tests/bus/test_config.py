"""Settings: a wrong one is refused by its key and where it came from."""

from pathlib import Path

import pytest

from bus.config import ConfigurationError, Settings, load


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def with_file(home: Path, text: str, **environment: str) -> Settings:
    home.mkdir(exist_ok=True)
    (home / "cumulog.toml").write_text(text)
    return load({"CUMULOG_HOME": str(home), **environment})


def test_the_defaults_are_a_whole_cloud_on_loopback(home):
    settings = load({"CUMULOG_HOME": str(home)})
    assert (settings.listen, settings.postgres, settings.bus) == ("127.0.0.1:8774", "embedded", "memory")
    assert settings.url == "http://127.0.0.1:8774"
    assert settings.home == home


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(home):
    text = 'region = "file"\nhosts = 2\nlisten = "127.0.0.1:1"\n[scheduler]\nram_weight = 2\ncpu_ratio = 8.0\n'
    home.mkdir()
    (home / "cumulog.toml").write_text(text)
    environment = {"CUMULOG_HOME": str(home), "CUMULOG_HOSTS": "3", "CUMULOG_SCHEDULER_RAM_WEIGHT": "-1.5"}
    settings = load(environment, listen="127.0.0.1:2")
    assert (settings.region, settings.hosts, settings.listen) == ("file", 3, "127.0.0.1:2")
    assert (settings.scheduler.ram_weight, settings.scheduler.cpu_ratio) == (-1.5, 8.0)


def test_a_table_of_names_is_read_from_the_file_and_from_the_environment(home):
    text = '[network]\nfabric = "eth0"\ninterfaces = { external = "eth1" }'
    assert with_file(home, text).network.interfaces == {"external": "eth1"}
    environment = {"CUMULOG_HOME": str(home), "CUMULOG_NETWORK_INTERFACES": "external=eth2, storage=eth3"}
    assert load(environment).network.interfaces == {"external": "eth2", "storage": "eth3"}


@pytest.mark.parametrize(
    "text, words",
    [
        ('hosts = "many"', ["hosts", "cumulog.toml", "int"]),
        ("hosts = 0", ["hosts", "cumulog.toml", ">= 1"]),
        ('hypervisor = "kvm"', ["hypervisor", "libvirt, simulated, none"]),
        ('listen = "8774"', ["listen", "host:port"]),
        ('listen = "127.0.0.1:99999"', ["listen", "host:port"]),
        ('postgres = "mysql://x"', ["postgres", "postgresql://"]),
        ('bus = "kafka://x"', ["bus", "amqp://"]),
        ('public_url = "cloud.example.org"', ["public_url", "https://"]),
        ('hypervizor = "none"', ["hypervizor", "did you mean hypervisor"]),
        ("[scheduler]\nram_wieght = 1.0", ["scheduler.ram_wieght", "did you mean scheduler.ram_weight"]),
        ('scheduler = "spread"', ["scheduler", "[scheduler]"]),
        ("[policy]\nx = 3", ["policy", "cumulog.toml"]),
        ("hosts = ", ["cumulog.toml", "not TOML"]),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(home, text, words):
    with pytest.raises(ConfigurationError) as refused:
        with_file(home, text)
    for word in words:
        assert word in str(refused.value)


def test_a_wrong_variable_is_refused_by_its_name(home):
    with pytest.raises(ConfigurationError, match="CUMULOG_LEASE_SECONDS"):
        load({"CUMULOG_HOME": str(home), "CUMULOG_LEASE_SECONDS": "soon"})


def test_a_file_that_was_named_must_be_there(tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        load({"CUMULOG_CONFIG": str(tmp_path / "nowhere.toml")})
