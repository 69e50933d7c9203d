"""Which jobbus.toml counts: the one that is named, else the first there is in a known order."""

from pathlib import Path

import pytest

from bus.errors import ConfigError
from jobbus.service.settings_file import ConfigFile, SettingsSource, find_config


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A file in each place, the nearest first; the data directory is `beside/data`."""
    files = {}
    for name in ("named", "variable", "cwd", "beside", "etc"):
        folder = tmp_path / name
        folder.mkdir()
        files[name] = folder / "jobbus.toml"
        files[name].write_text(f'[serve]\nhosts = ["{name}"]\n')
    monkeypatch.chdir(tmp_path / "cwd")
    return files


def found(places: dict[str, Path], given: Path | None = None, **environ: str) -> ConfigFile:
    data = places["beside"].parent / "data"
    return find_config(given, data, environ, system=places["etc"].parent)


def test_the_first_in_order_counts_and_the_others_are_named(places: dict[str, Path]) -> None:
    in_order = [places["cwd"], places["beside"], places["etc"]]
    for number, path in enumerate(in_order):
        assert found(places) == ConfigFile(path=path, passed_over=tuple(in_order[number + 1 :]))
        path.unlink()
    assert found(places) == ConfigFile()


def test_a_named_file_counts_alone_and_the_flag_before_the_variable(
    places: dict[str, Path],
) -> None:
    variable = {"JOBBUS_CONFIG": str(places["variable"])}
    assert find_config(places["named"], None, variable) == ConfigFile(path=places["named"])
    assert find_config(None, None, variable) == ConfigFile(path=places["variable"])
    assert found(places, JOBBUS_CONFIG="").path == places["cwd"]


def test_a_named_file_that_is_missing_is_an_error(places: dict[str, Path]) -> None:
    places["variable"].unlink()
    with pytest.raises(ConfigError, match=r"variable/jobbus\.toml cannot be read"):
        SettingsSource(None, {"JOBBUS_CONFIG": str(places["variable"])}, {}).read()


def test_the_data_directory_of_flag_and_environment_says_what_is_beside(
    places: dict[str, Path], tmp_path: Path
) -> None:
    places["cwd"].unlink()
    data = tmp_path / "beside" / "data"
    for environ, flags in (
        ({}, {"serve.data": data}),
        ({"JOBBUS_DATA": str(data)}, {}),
        ({"JOBBUS_DATA": "elsewhere", "JOBBUS_SERVE_DATA": str(data)}, {}),
        ({"JOBBUS_DATA": "elsewhere"}, {"serve.data": data}),
    ):
        assert SettingsSource(None, environ, flags).read().serve.hosts == ("beside",)


def test_a_place_that_cannot_be_looked_at_is_an_error_unless_a_nearer_file_counts(
    places: dict[str, Path],
) -> None:
    places["etc"].unlink()
    places["etc"].symlink_to(places["etc"].name)  # in a circle
    assert found(places).path == places["cwd"]
    places["beside"].unlink()
    places["cwd"].unlink()
    with pytest.raises(ConfigError, match="cannot be looked at"):
        found(places)


def test_each_read_looks_again(places: dict[str, Path]) -> None:
    source = SettingsSource(None, {}, {"serve.data": places["beside"].parent / "data"})
    assert source.read().serve.hosts == ("cwd",)
    places["cwd"].unlink()
    assert source.read().serve.hosts == ("beside",)
    assert source.file is not None
    assert source.file.path == places["beside"]
