"""The reference pages say what the types, the checks and the command line say."""

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
