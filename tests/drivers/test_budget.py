"""Work by priority and the clock: what is done, what is left out, what fails."""

from jax_unlearn.drivers.budget import Done, Piece, foreseen, lines, spend


def clocked(*pieces, seconds, slow=1.0):
    """Do pieces of made-up length; return what became of each, and what was told."""
    now, told = [0.0], []

    def made(piece):
        def make():
            now[0] += slow * piece.seconds
            return piece.name

        return piece._replace(make=make)

    found = spend(map(made, pieces), seconds, told=told.append, clock=lambda: now[0])
    return found, told


def piece(name, seconds, *needs):
    return Piece(name, seconds, print, needs)


def test_all_that_fits_is_done_and_told_in_order():
    found, told = clocked(piece("a", 2), piece("b", 3), seconds=5)
    assert [done.result for done in found] == ["a", "b"]
    assert [done.seconds for done in found] == [2, 3]
    assert told == found


def test_what_is_too_long_is_passed_over_and_what_needs_it():
    found, _ = clocked(
        piece("a", 2), piece("b", 9), piece("c", 1, "b"), piece("d", 1), seconds=5
    )
    assert [bool(done.reason) for done in found] == [False, True, True, False]
    assert "needs b" in found[2].reason


def test_what_took_longer_corrects_what_is_foreseen():
    found, _ = clocked(piece("a", 2), piece("b", 2), seconds=5, slow=2)
    assert found[0].seconds == 4
    assert found[1].reason == "4 s, 1 s left"


def test_many_short_pieces_that_took_longer_cost_no_long_one():
    # models that are there already take a second each instead of a tenth
    short = [piece(f"there {number}", 0.1) for number in range(5)]
    found, _ = clocked(*short, piece("new", 30), seconds=40, slow=1.2)
    assert not any(done.reason for done in found)


def test_a_failure_leaves_the_others():
    def fail():
        raise ValueError("too hot")

    pieces = Piece("a", 1, fail), piece("b", 1, "a"), Piece("c", 1, lambda: "cool")
    found = spend(pieces, 60)
    assert [done.reason for done in found] == ["too hot", "needs a", ""]
    assert found[2].result == "cool"


def test_the_plan_is_what_is_done_at_the_foreseen_pace():
    pieces = piece("a", 2), piece("b", 4), piece("c", 2)
    plan = foreseen(pieces, 5)
    assert all(isinstance(done, Done) for done in plan)
    found, _ = clocked(*pieces, seconds=5)
    assert [done.reason for done in plan] == [done.reason for done in found]
    plan = foreseen([*pieces, piece("d", 0, "b")], 5)
    assert [done.reason for done in plan] == ["", "4 s, 3 s left", "", "needs b"]


def test_the_plan_is_told_by_folder():
    pieces = piece("a/0/FT", 3), piece("a/0/RL", 9), piece("b/0/RL", 8)
    told = list(lines(foreseen(pieces, 5)))
    assert told == ["a/0: 3 s (FT 3 s); left out: RL 9 s", "b/0: left out: RL 8 s"]
