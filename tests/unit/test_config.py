"""Settings: what wins over what, and that nothing wrong passes in silence."""

import re
from pathlib import Path

import msgspec
import pytest

from bus.access import RoleDefaults
from bus.errors import ConfigError
from jobbus.service.settings import Settings
from jobbus.service.settings_checks import split_listen
from jobbus.service.settings_reading import load_settings

BEHIND = "[serve]\nbehind_proxy = true\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "jobbus.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert settings.serve.data == Path.cwd() / "jobbus-data"
    assert settings.serve.listen == "127.0.0.1:8765"
    assert settings.directory.default_roles == ("operator",)
    assert settings.roles == RoleDefaults()


def test_flag_wins_over_environment_which_wins_over_file(tmp_path: Path) -> None:
    config = written(
        tmp_path, '[serve]\nlisten = "127.0.0.1:1"\napps = "mine"\nhosts = ["a.example"]\n'
    )
    environ = {"JOBBUS_SERVE_LISTEN": "127.0.0.1:2", "JOBBUS_SERVE_HOSTS": "b.example, c.example"}
    settings = load_settings(config, environ, {"serve.listen": "127.0.0.1:3", "serve.apps": None})
    assert settings.serve.listen == "127.0.0.1:3"
    assert settings.serve.hosts == ("b.example", "c.example")
    assert settings.serve.apps == tmp_path / "mine"


def test_relative_paths_count_from_the_file_or_from_here(tmp_path: Path) -> None:
    config = written(tmp_path, '\ufeff[serve]\ndata = "here"\n')  # as Windows' editors save it
    assert load_settings(config).serve.data == tmp_path / "here"
    assert load_settings(config, {"JOBBUS_DATA": "there"}).serve.data == Path.cwd() / "there"
    assert load_settings(config, {"JOBBUS_DATA": "/x", "JOBBUS_SERVE_DATA": "/y"}).serve.data == (
        Path("/y")
    )


def test_roles_and_directory_come_from_their_sections(tmp_path: Path) -> None:
    config = written(
        tmp_path,
        '[roles]\nview = ["all"]\n[directory]\nadmin = true\n[directory.uid_roles]\n33 = ["web"]\n',
    )
    settings = load_settings(config)
    assert settings.roles == RoleDefaults(view=("all",))
    assert settings.directory.admin
    assert settings.directory.uid_roles == {33: ("web",)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[serve]\nlisen = 'x'\n", ["[serve]", "'lisen'", "'listen'"]),
        ("[sevre]\n", ["[sevre]", "'serve'"]),
        ("serve = 3\n", ["serve", "section"]),
        ("[serve]\nlisten = 3\n", ["[serve] listen", "must be text, not a number"]),
        ("[serve]\ndata = ''\napps = 1\n", ["[serve] apps"]),
        (
            "[serve]\nbehind_proxy = 'yes'\n",
            ["[serve] behind_proxy", "true or false, not text"],
        ),
        ("[roles]\nview = 'all'\n", ["[roles] view"]),
        ("[roles]\nview = ['system:x']\n", ["'system:x'", "no role"]),
        ("[directory]\ndefault_roles = ['admin']\n", ["[directory] default_roles"]),
        ("[directory.role_map]\nroot = ['admin']\n", ["'root'", "admin = true"]),
        ("[directory.role_map]\nroot = ['uid:0']\n", ["'uid:0'", "no role"]),
        ("[directory.role_map]\nroot = 'viewer'\n", ["[directory] role_map"]),
        ("[nats]\nurl = 'nats://x'\n", ["[nats]", "not built"]),
        ("[serve\n", ["no valid TOML", "line 1", "] is missing"]),
        ("[keep]\ndays = " + "9" * 5000, ["no valid TOML", "digits"]),
        ("[serve]\nlisten = '0.0.0.0:80'\n", ["0.0.0.0", "--behind-proxy"]),
        ("[serve]\nlisten = 'example.org:80'\n", ["example.org"]),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    config = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(config)
    assert [word for word in (str(config), *words) if word not in str(caught.value)] == []


def test_what_is_wrong_in_a_flag_is_not_laid_on_the_file(tmp_path: Path) -> None:
    config = written(tmp_path, "[serve]\nlisten = '127.0.0.1:80'\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(config, flags={"serve.listen": "0.0.0.0:80"})
    assert str(caught.value).startswith("[serve] listen: 0.0.0.0 can be reached")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JOBBUS_SERVE_LISTN", "127.0.0.1:1"),
        ("JOBBUS_SERVE_BEHIND_PROXY", "perhaps"),
        ("JOBBUS_DIRECTORY_UID_ROLES", "33=web"),
        ("JOBBUS_KEEP_RESULTS", "7"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load_settings(None, {name: value})


def test_other_variables_of_ours_are_left_alone() -> None:
    environ = {"JOBBUS_URL": "http://x", "JOBBUS_TOKEN": "t", "JOBBUS_VAR_X": "1", "SERVE_X": "1"}
    assert load_settings(None, environ) == load_settings()


def test_missing_and_huge_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="larger"):
        load_settings(written(tmp_path, "#" * 2_000_000))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[proxy]\ntrusted = ['10.0.0.1']\n", ["--behind-proxy"]),
        (BEHIND + "[proxy]\ntrusted = ['10.0.0.1/8']\n", ["trusted", "10.1.0.0/16"]),
        (BEHIND + "[proxy]\nuser_header = 'X-User'\n", ["user_header", "trusted"]),
        (BEHIND + "[proxy]\ntrusted = ['::1']\nuser_header = 'X User'\n", ["'X User'"]),
        (BEHIND + "[proxy]\ntrusted = ['::1']\nroles_header = 'X-R'\n", ["user_header"]),
        (BEHIND + "[proxy]\ndefault_roles = ['viewer']\n", ["user_header"]),
        ("[limits]\nstreams = 0\n", ["[limits] streams", "from 1"]),
        ("[limits]\nposts_per_s = nan\n", ["[limits] posts_per_s"]),
        ("[limits]\nsessions = 'many'\n", ["[limits] sessions", "must be a whole number"]),
        ("[serve]\norigins = ['https://a.example/']\n", ["no origin", "https://"]),
        ("[serve]\norigins = ['*']\n", ["no origin"]),
        ("[serve]\norigins = ['https://A.example']\n", ["no origin"]),
        ("[serve]\ntls_cert = 'cert.pem'\n", ["tls_key"]),
    ],
)
def test_doors_that_would_stand_open_are_refused(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(written(tmp_path, text))
    assert [word for word in words if word not in str(caught.value)] == []


def test_tls_and_limits_come_from_file_and_environment(tmp_path: Path) -> None:
    config = written(
        tmp_path,
        "[serve]\nlisten = '0.0.0.0:443'\ntls_cert = 'c.pem'\ntls_key = 'k.pem'\n"
        "origins = ['https://dash.example.org', 'http://localhost:3000']\n",
    )
    environ = {"JOBBUS_LIMITS_STREAMS": "50", "JOBBUS_LIMITS_POSTS_PER_S": "2.5"}
    settings = load_settings(config, environ)
    assert settings.serve.tls_cert == tmp_path / "c.pem"
    assert settings.serve.tls_key == tmp_path / "k.pem"
    assert (settings.limits.streams, settings.limits.posts_per_s) == (50, 2.5)
    with pytest.raises(ConfigError, match="JOBBUS_LIMITS_STREAMS must be a number"):
        load_settings(None, {"JOBBUS_LIMITS_STREAMS": "many"})


def test_what_the_page_on_access_shows_can_be_set(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text(encoding="utf-8")
    shown = page.partition("```toml\n")[2].partition("```")[0]
    settings = load_settings(written(tmp_path, shown))
    assert settings.proxy.user_header == "X-Remote-User"
    limits = dict(re.findall(r"`([a-z_]+) = (\d+)`", page.partition("## Limits")[2]))
    assert {name: float(value) for name, value in limits.items()} == msgspec.to_builtins(
        settings.limits
    )


def test_proxy_in_front_allows_other_addresses() -> None:
    settings = load_settings(flags={"serve.listen": "0.0.0.0:80", "serve.behind_proxy": True})
    assert isinstance(settings, Settings)


@pytest.mark.parametrize(
    ("listen", "parts"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:8765", ("::1", 8765)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_listen_is_address_and_port(listen: str, parts: tuple[str, int]) -> None:
    assert split_listen(listen) == parts


@pytest.mark.parametrize(
    "listen", ["", ":80", "8765", "127.0.0.1:", "127.0.0.1:65536", "::1:80", "a:٣", "a:-1", "[]"]
)
def test_listen_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match="listen"):
        split_listen(listen)


def test_a_key_by_its_earlier_name_counts(tmp_path: Path) -> None:
    config = tmp_path / "jobbus.toml"
    config.write_text('[serve]\nlog_level = "debug"\n')
    assert load_settings(config).log.level == "debug"
    assert load_settings(config, {"JOBBUS_LOG_LEVEL": "error"}).log.level == "error"
    assert load_settings(None, {"JOBBUS_SERVE_LOG_LEVEL": "error"}).log.level == "error"
    with config.open("a") as file:
        file.write('[log]\nlevel = "warning"\n')
    assert load_settings(config).log.level == "warning"


@pytest.mark.parametrize(("key", "word"), [("level", "loud"), ("format", "xml")])
def test_a_word_of_the_log_that_is_none_names_those_there_are(key: str, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[log\] {key} must be one of .*, not '{word}'"):
        load_settings(None, {f"JOBBUS_LOG_{key.upper()}": word})
