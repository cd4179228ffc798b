from __future__ import annotations

from normloom.models.openvino.batch import Task, _admit
from normloom.models.transformers.decoding import Draft, Stops

STOPS = Stops(frozenset(), (), str)


def task(instruction: str, prompt: str, *, tokens: int = 0) -> Task:
    draft = Draft(0, [1, 2], seed=0, tokens=[7] * tokens)
    return Task(draft=draft, config=None, stops=STOPS, shared=(instruction, (instruction, prompt)))


class TestAdmission:
    def test_what_begins_alike_waits_until_the_beginning_was_read(self) -> None:
        first, same_head, other = task("a", "x"), task("a", "y"), task("b", "x")
        assert _admit([first, same_head, other], [], set(), room=9) == ([first, other], [same_head])
        assert _admit([same_head], [first, other], set(), room=9) == ([], [same_head])

    def test_rows_of_a_known_instruction_start_together_and_their_other_candidates_wait(self) -> None:
        rows = [task("a", "x"), task("a", "x"), task("a", "y")]
        assert _admit(rows, [], {"a"}, room=9) == ([rows[0], rows[2]], [rows[1]])
        written = [task("a", "x", tokens=1)]
        assert _admit(rows[1:], written, {"a", ("a", "x")}, room=9) == (rows[1:], [])

    def test_no_more_than_fit_start_and_the_others_keep_their_order(self) -> None:
        rows = [task("a", name) for name in "vwxyz"]
        assert _admit(rows, [], {"a"}, room=2) == (rows[:2], rows[2:])
        assert _admit(rows, [], {"a"}, room=0) == ([], rows)
