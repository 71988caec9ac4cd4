"""How long work takes that is handed out to workers, held against schedules made by hand."""

from __future__ import annotations

from bench.study.makespan import Piece, Strand, makespan

LATER, FIRST = False, True


def test_nothing_takes_no_time():
    assert makespan([], 2) == 0
    assert makespan([Strand()], 2) == 0


def test_work_that_runs_ends_when_it_ends():
    assert makespan([Strand([3.0, 5.0]), Strand([4.0])], 3) == 5


def test_pieces_go_to_the_worker_that_is_free_first():
    strands = [Strand([], [[Piece(LATER, seconds)]]) for seconds in (4, 3, 2, 1)]
    assert makespan(strands, 1) == 10
    assert makespan(strands, 2) == 5
    assert makespan(strands, 9) == 4


def test_a_stage_waits_for_all_of_the_one_before():
    strand = Strand([2.0], [[Piece(LATER, 5)], [Piece(FIRST, 1), Piece(FIRST, 1)], [], [Piece(FIRST, 7)]])
    assert makespan([strand], 2) == 5 + 1 + 7
    assert makespan([strand], 1) == 2 + 5 + 2 + 7


def test_what_is_first_is_taken_up_before_what_has_waited_longer():
    trained = Strand([1.0], [[], [Piece(FIRST, 10)]])
    to_train = [Strand([], [[Piece(LATER, 2)]]) for _ in range(3)]
    assert makespan([*to_train, trained], 2) == 1 + 10
    assert makespan([*to_train, trained], 1) == 1 + 10 + 6
