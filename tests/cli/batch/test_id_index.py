"""Ids: done, new, doubled; against a dict as the model."""

from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.cli.batch.id_index import IdIndex, id_key, line_key

names = st.text(min_size=1, max_size=60) | st.sampled_from(["a", "b", "x" * 100, "x" * 101])


@given(done=st.lists(names), read=st.lists(names))
def test_index_agrees_with_a_dict(done, read):
    index, known = IdIndex(), {}
    for name in done:
        assert index.add_done(id_key(name)) == (name not in known)
        known[name] = None
    for place, name in enumerate(read):
        seen = index.see(id_key(name), place)
        assert seen.done == (name in known and known[name] is None)
        assert seen.first_place == known.get(name)
        known.setdefault(name, place)
        if known[name] is None:
            known[name] = place
    for name, place in known.items():
        assert index.place_of(id_key(name)) == place
    assert index.unmet() == sum(place is None for place in known.values())
    assert index.place_of(id_key("never seen, and longer than what is stored as it is" * 2)) is None
    index.close()


@given(st.lists(names, unique=True))
def test_keys_never_meet(values):
    keys = [id_key(value) for value in values] + [line_key(value) for value in values]
    assert len(set(keys)) == len(keys)
