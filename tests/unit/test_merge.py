"""Records that people and the service both change: nothing comes back, nothing gets lost."""

from hypothesis import given
from hypothesis import strategies as st

from transports.http.access.state_merge import merged

lists = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 9), max_size=8)


@given(before=lists, ours=lists, theirs=lists)
def test_what_either_side_removed_is_gone_and_what_either_added_is_there(
    before: dict[str, int], ours: dict[str, int], theirs: dict[str, int]
) -> None:
    found = dict(
        merged(
            before.items(),
            ours.items(),
            theirs.items(),
            lambda record: record[0],
            lambda file, memory: (file[0], max(file[1], memory[1])),
        )
    )
    for key in before.keys() | ours.keys() | theirs.keys():
        removed = key in before and not (key in ours and key in theirs)
        assert (key in found) is not removed
        if key in ours and key in theirs:
            assert found[key] == max(ours[key], theirs[key])
        elif key in found:
            assert found[key] == {**ours, **theirs}[key]
