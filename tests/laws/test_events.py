"""Events last for ever: any history folds, any state survives being written, any event written once can be read."""

from datetime import timedelta
from functools import reduce

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.event import decode, event_named
from schema.network.rbac_policy import EVERYBODY, RBAC_POLICY, SHARED, RbacPolicyCreated
from tests.laws.discovery import all_events, all_kinds
from tests.laws.golden import FOLDER
from tests.laws.samples import MOMENT, values

pytestmark = pytest.mark.law

SECRET_WORDS = ("password", "secret", "private_key", "token", "user_data", "passphrase", "credential")
NO_SECRETS = ("secret_id", "_secret_id", "secret_ids", "token_lifetime", "_id", "_ids", "_hash_of")
"""Endings of names of what only points at a secret."""


def folded(kind, events, state=None, start=0):
    state = kind.unborn("it") if state is None else state
    for number, event in enumerate(events, start):
        state = kind.fold(state, event, MOMENT + timedelta(seconds=number))
    return state


def histories(kind):
    return st.lists(st.one_of(*(values(event) for event in kind.events)), max_size=8)


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_history_folds_and_its_state_can_be_written_at_any_point(kind, data):
    history = data.draw(histories(kind))
    cut = data.draw(st.integers(0, len(history)))
    whole = folded(kind, history)
    assert type(whole) is kind.state
    snapshot = kind.decoder.decode(msgspec.json.encode(folded(kind, history[:cut])))
    assert folded(kind, history[cut:], snapshot, cut) == whole
    assert kind.decoder.decode(msgspec.json.encode(whole)) == whole
    if history:
        assert whole.updated_at == MOMENT + timedelta(seconds=len(history) - 1)
        assert all(isinstance(scope, str) and isinstance(key, str) for scope, key in kind.unique(whole))
        deadline = kind.deadline(whole)
        assert deadline is None or deadline.tzinfo is not None


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
def test_what_the_vault_keeps_of_a_thing_its_kind_names(kind):
    """Or it would stay there when the thing is gone."""
    state = kind.unborn("it")
    for owner, field, put in _fields(state):
        if field.endswith(("secret_id", "password_id")):
            assert "s-1" in kind.secrets(put(msgspec.structs.replace(owner, **{field: "s-1"})))


def _fields(state):
    """Those of a state and of what it is made of: (whose it is, its name, the state with another of those)."""
    for field in state.__struct_fields__:
        yield state, field, lambda changed: changed
        value = getattr(state, field)
        if isinstance(value, msgspec.Struct):
            for inner in value.__struct_fields__:
                yield value, inner, lambda changed, field=field: msgspec.structs.replace(state, **{field: changed})


@pytest.mark.parametrize("event", all_events(), ids=lambda event: event.__name__)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_event_reads_back_as_it_was_written(event, data):
    it = data.draw(values(event))
    assert decode(event.__name__, msgspec.json.encode(it)) == it


def test_every_event_has_a_golden_file():
    missing = [event.__name__ for event in all_events() if not (FOLDER / f"{event.__name__}.json").exists()]
    assert missing == [], "python -m tests.laws.golden writes them; commit them with the events"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_written_once_can_be_read_for_ever(path):
    """Also by upcasting, where the type was retired; a field that came later has a default."""
    golden = msgspec.json.decode(path.read_bytes())
    event = decode(path.stem, path.read_bytes())
    assert event_named(type(event).__name__) is type(event)
    if type(event).__name__ == path.stem:
        assert msgspec.json.decode(msgspec.json.encode(event)) == golden


def test_events_hold_no_secrets():
    suspicious = [
        f"{event.__name__}.{field}"
        for event in all_events()
        for field in event.__struct_fields__
        if any(word in field for word in SECRET_WORDS) and not field.endswith(NO_SECRETS)
    ]
    assert suspicious == [], "seal it in the vault, keep its secret_id"


def test_no_two_kinds_begin_alike():
    names = [kind.name for kind in all_kinds()]
    assert len(set(names)) == len(names)
    assert not any("/" in name or " " in name for name in names)
    assert reduce(lambda sum, kind: sum + len(kind.events), all_kinds(), 0) == len(all_events())


def test_a_default_is_left_out_of_a_document_whoever_said_it():
    """Or a document would not be, word for word, what its events fold to."""
    everybody = msgspec.json.decode(b'"*"')
    assert everybody is not EVERYBODY, "this is about equal texts that are not the same object"
    said = {"project_id": "p", "parent_id": "n", "object_type": "network", "action": SHARED}
    written = [
        msgspec.json.encode(folded(RBAC_POLICY, [RbacPolicyCreated(**said, target_project=it)]))
        for it in (everybody, EVERYBODY)
    ]
    assert written[0] == written[1]
