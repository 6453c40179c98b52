"""Clients that are handed over, with the real Chainlit in a process of its own and both stores.

The scenarios are in `tests/support/hand_over_lab.py`; here is what has to come of each.
"""

from typing import Any

import pytest

from tests.sessions.labs import told_by


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of all scenarios, by their names."""
    folder = tmp_path_factory.mktemp("lab")
    store = f"sqlite://{folder}/sessions.db"
    if request.param == "redis":
        store = request.getfixturevalue("redis_server").url
    return told_by("hand_over_lab.py", folder, store)


def test_a_client_goes_on_where_it_was(answers: Any) -> None:
    """Its page is told what it would be told at a greeting, once; its cursor goes, and the state is there."""
    accepted, resumed, events, greetings, shown, begun, hand_overs = answers["goes_on"]
    assert (accepted, resumed) == (True, [True])
    assert events == [
        ["update_message", {"id": "streamed", "streaming": False}],
        ["task_end", {}],
        ["clear_ask", {}],
        ["clear_call_fn", {}],
    ]
    assert greetings == 1, "what the page says itself behind that is not heard"
    assert shown == ["2 two"]
    assert begun == ["restoring", "restored", "two"]
    assert hand_overs == 1


def test_only_pages_are_told_of_their_cursor(answers: Any) -> None:
    """Another client hears what it would hear at any connection."""
    assert answers["other_client"] == [True, ["task_end", "clear_ask", "clear_call_fn"]]


def test_the_end_of_what_was_streamed_comes_after_all(answers: Any) -> None:
    """A message that the store has whole is shown whole."""
    assert answers["streamed_whole"] == [True, [["1 one", False]]]


def test_a_message_that_was_not_begun_is_run(answers: Any) -> None:
    """Without a notice, once, and not again when the proxy says it."""
    before, resumed, acks, called, shown, late, cut, known = answers["recorded_and_not_begun"]
    assert before == ["one"], "it died before it called the app"
    assert resumed
    assert all(ack in ([], [True]) for ack in acks), "it may be answered by then"
    assert (called, shown) == (["two"], ["2 two"])
    assert (late, cut, known) == (1, 0, 2)


def test_a_message_that_was_begun_while_the_store_was_down_is_told(answers: Any) -> None:
    """The proxy has heard that it began: it is not run. What else a client may say with it is nothing."""
    resumed, acks, called, shown, cut, said = answers["begun_and_not_recorded"]
    assert (resumed, acks) == (True, [[], [True]])
    assert (called, shown) == (["three"], ["cut off", "2 three"])
    assert (cut, said) == (1, 1)


def test_a_message_that_was_begun_is_told(answers: Any) -> None:
    """The app is not called twice for it; the chat goes on."""
    resumed, ack, called, shown, late, cut = answers["recorded_and_begun"]
    assert (resumed, ack) == (True, [])
    assert (called, shown) == (["three"], ["cut off", "2 three"])
    assert (late, cut) == (0, 1)


def test_a_turn_is_tried_again_once(answers: Any) -> None:
    """With `retry_turn` a message that ends its instance ends one more, however far it came there."""
    assert answers["retried"] == [[True, True], ["cut off"], [], ["cut off"], []]


def test_a_message_that_is_never_begun_is_told_in_the_end(answers: Any) -> None:
    """One that ends its instance before the app is called is given to one more."""
    assert answers["never_begun"] == [[True, True], [], [], [], ["cut off"]]


def test_a_message_that_was_not_begun_is_run_without_a_proxy_too(answers: Any) -> None:
    """A client that connects by itself gets the answer in place of the notice."""
    assert answers["ordinary"] == [["two"], ["2 two"], 1, 0]


def test_what_nobody_was_told_of_is_left_to_the_next(answers: Any) -> None:
    """An instance that dies between the CONNECT and the greeting takes nothing with it."""
    assert answers["before_hello"] == [True, [], ["two"]]


def test_a_client_that_is_lost_while_it_is_greeted_hears_all(answers: Any) -> None:
    """Also at the same instance, by the socket that it has then, and before what it says next."""
    begun, shown = answers["back_in_the_middle"]
    assert begun == ["restoring", "restored", "two", "three"]
    assert sorted(shown) == ["2 two", "3 three"]


def test_a_message_that_nobody_took_is_run_once(answers: Any) -> None:
    """However often it is said again; another message by the same id is another one. `True`: it runs."""
    resumed, acks, called, run, known = answers["not_recorded"]
    assert (resumed, acks) == (True, [[True], [], [True]])
    assert called == ["two", "three, by the same id"]
    assert (run, known) == (2, 1)


def test_an_answer_that_did_not_arrive_is_sent_again(answers: Any) -> None:
    """A message that was answered is not run; what followed it is shown, with its elements."""
    assert answers["finished"] == [True, [], [], ["1 file"], ["f"]]


def test_an_edited_message_is_said_again(answers: Any) -> None:
    """It is run once, and is taken before its turn has ended."""
    resumed, acks, called, ended = answers["edited"]
    assert (resumed, acks) == (True, [[True], [True]])
    assert called == ["wait"]
    assert not ended
    resumed, answer, before, after = answers["edit_not_begun"]
    assert (resumed, before, after) == (True, ["one"], ["other"])
    assert answer in ([], [True]), "its turn may have ended by then"


def test_what_is_not_held_is_refused(answers: Any) -> None:
    """Nothing is left of it or written, no file is removed, and the client begins anew by itself."""
    accepted, packet, resumed, left, writes, folder, begun, refused = answers["nothing_held"]
    assert (accepted, packet, resumed) == (False, "4{", [False])
    assert (left, writes, folder) == ([False, False, False], 0, True)
    assert (begun, refused) == (["start", "one"], 1)


def test_what_cannot_be_read_is_refused(answers: Any) -> None:
    """The client's own connection finds what it would have found: it begins anew, and hears of the turn."""
    assert answers["unreadable"] == [False, ["start"], ["cut off"], []]


def test_an_older_copy_is_no_session_that_goes_on(answers: Any) -> None:
    """Where others have written what cannot be read the client begins anew, as without a hand-over."""
    assert answers["older_copy"] == [False, False, ["start", "one", "start", "two"], ["1 two"]]


def test_a_session_that_never_left_goes_on(answers: Any) -> None:
    """Only the connection broke: what runs goes on there, and is not run again."""
    resumed, ack, called, shown, begun, cursor = answers["same_instance"]
    assert (resumed, ack) == (True, [True])
    assert called == ["one", "wait"]
    assert shown == ["2 wait"]
    assert begun == ["start", "one", "wait"]
    assert not cursor, "the answer goes on"


def test_a_client_that_came_by_itself_comes_anew(answers: Any) -> None:
    """Where a hand-over takes its session it hears of that; one that was handed over itself does not."""
    assert answers["came_by_itself"] == [[True, True], [1, 0], ["start", "one"]]


def test_a_refused_hand_over_leaves_no_client_without_its_session(answers: Any) -> None:
    """One that is here meanwhile comes anew, too: it was not heard, and what it has is known to be older."""
    assert answers["refused_beside_its_client"] == [False, 1]


def test_a_client_is_handed_over_again_and_again(answers: Any) -> None:
    """Between instances that live each has what the other put down."""
    resumed, shown, at_a, at_b, hand_overs = answers["back_and_forth"]
    assert resumed == [True] * 4
    assert shown == ["5 turn 3"]
    assert (at_a, at_b) == (["one", "turn 1", "turn 3"], ["turn 0", "turn 2"])
    assert hand_overs == [2, 2]


def test_whoever_speaks_to_the_namespace_gets_nothing_by_it(answers: Any) -> None:
    """Late, early, twice, out of order or broken: refused, or answered with false; one greeting at most."""
    late, silent, early, twice, unresumed, broken, resumed, at_a, at_b, greetings = answers["hostile"]
    assert (late, twice) == ("4/", "4/"), "a session is there already; and who has joined has joined"
    assert silent == [0, 0], "who has not joined is not heard"
    assert early == [[False]] * 3
    assert unresumed == [False]
    assert broken == [[False]] * len(broken)
    assert resumed == [[True]] * 2
    assert (at_a, at_b, greetings) == (["one"], ["two"], 1)


def test_a_late_answer_is_none_to_another_question(answers: Any) -> None:
    """Questions are numbered from anywhere, so the first of one instance is not the first of the next."""
    assert answers["late_answer"] == [True, "1", ["cut off", "you said for the new", "1 ask two"]]


def test_while_the_store_is_down_only_who_is_here_goes_on(answers: Any) -> None:
    """Who is refused then is not written when the store is back: the next one finds all."""
    assert answers["store_down"] == [[False, True, True], 0, ["2 two"], ["3 three"]]


def test_namespaces_of_an_app_are_its_own(answers: Any) -> None:
    """Also on a transport that is handed over, and with events of the same names."""
    assert answers["other_spaces"] == [True, '3/app,7[["app",1]]', 1]


def test_what_is_made_anew_is_there_for_the_next_message(answers: Any) -> None:
    """`on_restore` has ended before a message is run that the client says at once."""
    assert answers["on_restore_first"] == ["restoring", "restored", "two"]


def test_an_app_that_never_ends_to_restore(answers: Any) -> None:
    """Its callback is given up in the end, and costs nobody the session."""
    assert answers["on_restore_that_never_returns"] == ["two"]
