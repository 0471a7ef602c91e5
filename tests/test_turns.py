"""What is large and comes at the same time."""

from controller.turns import Turns


def test_message_waits_until_there_is_room_for_all_of_it() -> None:
    turns, gone_on = Turns(30), []
    assert turns.ask("a", 20, then=lambda: None)
    assert not turns.ask("b", 20, then=lambda: gone_on.append("b"))
    assert gone_on == []
    turns.end("a")
    assert gone_on == ["b"]


def test_small_message_does_not_pass_one_that_waits() -> None:
    turns, gone_on = Turns(30), []
    turns.ask("a", 20, then=lambda: None)
    turns.ask("b", 20, then=lambda: gone_on.append("b"))
    assert not turns.ask("c", 5, then=lambda: gone_on.append("c"))
    turns.end("a")
    assert gone_on == ["b", "c"]


def test_one_that_gives_up_is_not_waited_for() -> None:
    turns, gone_on = Turns(30), []
    turns.ask("a", 20, then=lambda: None)
    turns.ask("b", 20, then=lambda: gone_on.append("b"))
    turns.ask("c", 10, then=lambda: gone_on.append("c"))
    turns.end("b")
    assert gone_on == ["c"]


def test_room_is_taken_once_for_each_message() -> None:
    turns = Turns(30)
    assert all(turns.ask("a", 20, then=lambda: None) for _ in range(3))
    assert turns.ask("b", 10, then=lambda: None)
