"""Which jobbus.toml counts: the one that is named, else the first there is in a known order."""

import os
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


@pytest.mark.parametrize("place", ["cwd", "beside"])
def test_a_file_that_everybody_may_write_counts_only_if_it_is_named(
    places: dict[str, Path], place: str
) -> None:
    if place == "beside":
        places["cwd"].unlink()
    places[place].chmod(0o666)
    with pytest.raises(ConfigError, match=r"may be written by everybody .* with --config"):
        found(places)
    assert found(places, places[place]).path == places[place]
    assert found(places, JOBBUS_CONFIG=str(places[place])).path == places[place]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_or_link_of_another_account_counts_only_if_it_is_named(
    places: dict[str, Path],
) -> None:
    file = places["cwd"]
    os.chown(file, 54_321, -1)
    with pytest.raises(ConfigError, match=r"another account \(uid 54321\)"):
        found(places)
    assert found(places, file).path == file
    file.unlink()
    file.symlink_to(places["etc"])
    assert found(places).path == file
    os.chown(file, 54_321, -1, follow_symlinks=False)
    with pytest.raises(ConfigError, match=r"another account \(uid 54321\)"):
        found(places)


def test_what_lies_in_etc_is_of_those_who_may_write_there(places: dict[str, Path]) -> None:
    places["cwd"].unlink()
    places["beside"].unlink()
    places["etc"].chmod(0o666)  # as a folder of a host looks in some containers
    assert found(places).path == places["etc"]


def test_a_file_of_others_matters_not_behind_one_that_counts(places: dict[str, Path]) -> None:
    places["beside"].chmod(0o666)
    assert found(places).path == places["cwd"]


def test_whole_paths_are_enough_where_the_working_directory_was_removed(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert found(places).path == places["beside"]
    assert found(places, places["named"]).path == places["named"]
    for given, data in ((Path("jobbus.toml"), None), (None, Path("data")), (None, None)):
        with pytest.raises(ConfigError, match="working directory, which was removed"):
            find_config(given, data, {})


def test_each_read_looks_again(places: dict[str, Path]) -> None:
    source = SettingsSource(None, {}, {"serve.data": places["beside"].parent / "data"})
    assert source.read().serve.hosts == ("cwd",)
    places["cwd"].unlink()
    assert source.read().serve.hosts == ("beside",)
    assert source.file is not None
    assert source.file.path == places["beside"]
