"""Every verb says in a line what it does, and a mistake is met with what to do."""

import pytest
from click.testing import CliRunner

from api.cli.__main__ import VERBS, cumulog


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_begins_as_the_table_says(verb):
    shown = CliRunner().invoke(cumulog, [verb, "--help"])
    assert shown.exit_code == 0, shown.output
    assert VERBS[verb][1].split(";")[0].rstrip(".").split(":")[0].split(",")[0] in " ".join(shown.output.split())


def test_a_mistyped_verb_is_met_with_the_nearest_one():
    shown = CliRunner().invoke(cumulog, ["stauts"])
    assert shown.exit_code == 2
    assert "did you mean status" in shown.output


@pytest.mark.parametrize("verb", ["events", "verify", "rebuild"])
def test_reading_a_log_that_is_not_there_says_how_to_make_one(person, verb):
    done = person.types(verb)
    assert done.returncode == 1
    assert "./cumulog up" in done.stderr


def test_a_wrong_setting_ends_in_a_sentence_not_in_a_traceback(person):
    done = person.types("status", CUMULOG_HOSTS="many")
    assert done.returncode == 1
    assert "hosts (from CUMULOG_HOSTS)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_filter_there_is_none_of_is_said_before_anything_starts(person):
    done = person.types("up", CUMULOG_SCHEDULER_FILTERS="Compute,Sieve")
    assert done.returncode == 1
    assert "there is no filter Sieve" in done.stderr
