from dataclasses import fields

from om_plugins.csp.html.state import Mode, State, Tag


def test_copy_of_a_state_has_all_of_it_and_is_changed_on_its_own():
    state = State(
        Mode.UNQUOTED, (Tag("script", 0, 7),), "src", "style", True, 2, "script", "<", "a", 1
    )
    unlike = State()
    assert all(getattr(state, one.name) != getattr(unlike, one.name) for one in fields(State))
    copy = state.copy()
    assert copy == state
    copy.mode, copy.tags = Mode.TEXT, ()
    assert (state.mode, len(state.tags)) == (Mode.UNQUOTED, 1)
