"""Values of any type a struct may hold: made by chance for properties, and one fixed one for golden files."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

MOMENT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
WORDS = ("", "a", "b", "c", "name", "Ünïcode", "4f1a2b3c-0000-4000-8000-123456789abc")

moments = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2040, 1, 1), timezones=st.just(UTC))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=2),
    max_leaves=4,
)


@cache
def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a Python type, few of them different, so that things meet."""
    return _values(inspect.type_info(kind))


def _values(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            low = info.ge if info.ge is not None else (info.gt + 1 if info.gt is not None else 0)
            high = info.le if info.le is not None else (info.lt - 1 if info.lt is not None else low + 9)
            return st.integers(low, min(high, low + 9))
        case inspect.FloatType():
            return st.sampled_from([value for value in (0.5, 1.0, 2.25, 100.0) if _within(value, info)])
        case inspect.StrType():
            return _texts(info)
        case inspect.BytesType():
            return st.binary(max_size=4)
        case inspect.DateTimeType():
            return moments
        case inspect.EnumType():
            return st.sampled_from(list(info.cls))
        case inspect.LiteralType():
            return st.sampled_from(list(info.values))
        case inspect.ListType():
            return st.lists(_values(info.item_type), max_size=3)
        case inspect.VarTupleType():
            return st.lists(_values(info.item_type), max_size=3).map(tuple)
        case inspect.TupleType():
            return st.tuples(*map(_values, info.item_types))
        case inspect.SetType():
            return st.sets(_values(info.item_type), max_size=3)
        case inspect.FrozenSetType():
            return st.frozensets(_values(info.item_type), max_size=3)
        case inspect.DictType():
            return st.dictionaries(_values(info.key_type), _values(info.value_type), max_size=3)
        case inspect.UnionType():
            return st.one_of(*map(_values, info.types))
        case inspect.StructType():
            return st.builds(info.cls, **{field.name: _values(field.type) for field in info.fields})
        case inspect.AnyType():
            return json_values
    raise TypeError(f"the laws know no values of {info}; teach tests/laws/samples.py")


def _texts(info: inspect.StrType) -> st.SearchStrategy[str]:
    if info.pattern is not None:
        return st.from_regex(info.pattern, fullmatch=True, alphabet=string.printable)
    shortest = info.min_length or 0
    fitting = [word for word in WORDS if shortest <= len(word) <= (info.max_length or 255)]
    return st.sampled_from(fitting or ["x" * shortest])


def _within(value: float, info: inspect.FloatType) -> bool:
    above = (info.ge is None or value >= info.ge) and (info.gt is None or value > info.gt)
    return above and (info.le is None or value <= info.le) and (info.lt is None or value < info.lt)


def sample(kind: Any) -> Any:
    """One value of a struct, every field filled, the same each time."""
    return _sample(inspect.type_info(kind), "")


def _sample(info: inspect.Type, name: str) -> Any:
    match info:
        case inspect.NoneType():
            return None
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return max(2, info.ge or 0) if info.le is None else min(max(2, info.ge or 0), info.le)
        case inspect.FloatType():
            return 1.5
        case inspect.StrType():
            return name or "text"
        case inspect.BytesType():
            return b"bytes"
        case inspect.DateTimeType():
            return MOMENT
        case inspect.EnumType():
            return next(iter(info.cls))
        case inspect.LiteralType():
            return info.values[0]
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
            return msgspec.convert([_sample(info.item_type, name)], _python_type(info))
        case inspect.TupleType():
            return tuple(_sample(item, name) for item in info.item_types)
        case inspect.DictType():
            return {_sample(info.key_type, f"{name}-key"): _sample(info.value_type, name)}
        case inspect.UnionType():
            return _sample(next((it for it in info.types if not isinstance(it, inspect.NoneType)), info.types[0]), name)
        case inspect.StructType():
            return info.cls(**{field.name: _sample(field.type, field.name) for field in info.fields})
        case inspect.AnyType():
            return {"any": [1, "text", None]}
    raise TypeError(f"the laws know no sample of {info}; teach tests/laws/samples.py")


def _python_type(info: inspect.Type) -> type:
    return {
        inspect.ListType: list,
        inspect.SetType: set,
        inspect.FrozenSetType: frozenset,
        inspect.VarTupleType: tuple,
    }[type(info)]
