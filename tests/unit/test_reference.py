"""The reference pages say what the types, the checks and the command line say."""

import re

from tests import reference


def test_reference_pages_are_what_the_types_and_the_help_make_of_them() -> None:
    made = reference.pages()
    stale = [
        name
        for name, text in made.items()
        if (reference.FOLDER / name).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run: python -m tests.reference"


def test_every_key_has_words_and_no_words_are_left_of_a_key_that_went() -> None:
    named = {row.split("`")[1] for row in reference.job_page().splitlines() if row[:3] == "| `"}
    assert {key.rpartition(".")[2] for key in reference.JOB_KEYS} == named
    named = {row.split("`")[1] for row in reference.service_page().splitlines() if row[:3] == "| `"}
    assert {key.rpartition(".")[2] for key in reference.SERVICE_KEYS} == named


def test_each_key_of_a_definition_names_a_test_whose_file_mentions_it() -> None:
    """Add the key to [job_tests] of docs/reference/words.toml."""
    sources = {
        name: text
        for path in (reference.ROOT / "tests").rglob("test_*.py")
        for text in [path.read_text(encoding="utf-8")]
        for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.M)
    }
    assert reference.JOB_TESTS.keys() == reference.JOB_KEYS.keys()
    assert [name for name in reference.JOB_TESTS.values() if name not in sources] == []
    unproven = [
        key
        for key, name in reference.JOB_TESTS.items()
        if not re.search(rf"\b{key.rpartition('.')[2]}\b", sources[name])
    ]
    assert unproven == []


def test_architecture_maps_every_module_of_the_tree() -> None:
    page = reference.ARCHITECTURE.read_text(encoding="utf-8")
    assert reference.with_map(page) == page, "run: python -m tests.reference"
    tree = {
        str(path.relative_to(reference.ROOT).with_suffix(""))
        for package in reference.PACKAGES
        for path in (reference.ROOT / package).rglob("*.py")
        if path.stem != "__init__"
    }
    mapped, folder = set(), ""
    for line in page.partition(reference.MAP_BEGINS)[2].splitlines():
        folder = line.removeprefix("### ") if line.startswith("### ") else folder
        if line.startswith("| `"):
            mapped.add(folder + line.split("`")[1])
    assert mapped == tree


def test_path_of_a_command_names_calls_that_exist_and_enters_each_folder_once() -> None:
    page = reference.ARCHITECTURE.read_text(encoding="utf-8")
    for title in ("### In: ", "### Out: "):
        rows = page.partition(title)[2].partition("\n#")[0]
        folders = re.findall(r"^\| `([\w/]+/)` \|", rows, re.M)
        assert len(folders) == len(set(folders)) >= 3, folders
        for folder, row in re.findall(r"^\| `([\w/]+/)` \| (.+)$", rows, re.M):
            calls = re.findall(r"`([\w/]+\.py):(\w+)`", row)
            assert calls, row
            for module, function in calls:
                source = (reference.ROOT / folder / module).read_text(encoding="utf-8")
                assert f"def {function}(" in source, f"{folder}{module}:{function}"
