"""One session at this instance, as a machine: whose it is, what is written next, what is restored.

absent: the store was not asked yet, or did not answer. claimed: ours, under a fence. lost: another instance
has it. refused: it belongs to another user. over: the user has ended it. docs/architecture.md has the whole
table. Decisions only: `sharing` asks the store, and calls a method for each thing that happens. Rules: a
claim restores what others wrote, and never what this process wrote itself over a copy that lives; a turn ends
itself and nothing else; while a turn runs no state is taken down.
"""

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .store import Claim, Outcome, Write

# Instances that may end over one state, one after the other; the next one does not restore it. One more than
# a hand-over may cost, after which a client comes alone: others that came with it are not taken for it.
MOST_TAKEN = 4


class Standing(Enum):
    """Whose a session is, as far as this instance knows."""

    ABSENT = "absent"
    CLAIMED = "claimed"
    LOST = "lost"
    REFUSED = "refused"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Found:
    """What another instance left of a session."""

    state: str | None  # None: nothing that can be restored, so the chat begins anew
    turns: list[Any]  # that were under way


@dataclass(eq=False)
class Turn:
    """Something of which a state of its middle is of no use."""

    text: str | None  # what whoever takes the session over is told, as JSON; None: nothing
    greets: bool = False  # `on_chat_start`, which need not return


@dataclass(eq=False)
class Copy:
    """A session in this process."""

    token: str  # of this process
    standing: Standing = Standing.ABSENT
    fence: int = 0
    number: int = 0  # of the last write under this fence that was accepted
    connected: bool = False
    fresh: bool = True  # nobody has used it yet: whatever is found may be restored over it
    since: int = 0  # when its client connected, if the store has not been heard since; in milliseconds
    asked: int = 0  # number of the last write; 0 if its client has connected since
    behind: bool = False  # the store has not taken what it was to be told
    begun: bool = False  # `on_chat_start` has returned, or a message was answered, or it was restored
    state: str | None = None  # to be written; None: nothing new; "": none that could be stored
    saved: int | None = None  # hash of the state that is in the store
    noted: str | None = None  # the turns that are in the store
    turns: list[Turn] = field(default_factory=list)  # under way
    untold: Found | None = None  # what was found, until the client has been told
    greeted: bool = False  # whether its client has said hello since
    taken: int = 0  # how often what was found has been taken over, and nothing written

    @property
    def must_claim(self) -> bool:
        """Whether the store is to be asked whose it is: only for a client that is here."""
        return self.connected and self.standing is Standing.ABSENT

    @property
    def is_done(self) -> bool:
        """Whether nothing has to be known of it any more."""
        over = self.standing is Standing.OVER and not self.fence
        return not self.connected and (over or self.standing in (Standing.LOST, Standing.REFUSED))

    @property
    def is_settled(self) -> bool:
        """Whether its state may be taken down: no turn is half way through it."""
        lives = self.standing not in (Standing.LOST, Standing.OVER)
        return lives and all(turn.greets and self.begun for turn in self.turns)

    def answered(self, claim: Claim) -> Found | None:
        """The store has answered a claim; returns what is to be restored."""
        # Not `again`: an answer that was lost may have been the one that took it back from others.
        elsewhere = claim.fence != self.fence and claim.writer != self.token
        stale = self.fresh or self.standing is Standing.LOST
        # One that has gone on alone is claimed with the time when its client came: was another one's later?
        moved = claim.fence > self.since if self.since else self.standing is Standing.CLAIMED
        newer = claim.writer and (stale or (moved and elsewhere))
        self.fresh, self.since = False, 0
        if self.standing is Standing.OVER:
            return None
        if not claim.fence:
            self.standing = Standing.REFUSED
            return None
        self.number = self.number if claim.fence == self.fence else 0  # they begin anew with the fence
        self.standing, self.fence = Standing.CLAIMED, claim.fence
        self.saved, self.noted = None if claim.state is None else hash(claim.state), claim.turns
        if not newer:
            return None
        self.turns.clear()  # of an older copy here
        self.taken = claim.taken
        state = claim.state if claim.taken <= MOST_TAKEN else None  # it may be why they ended
        self.state, self.begun = None, state is not None
        self.untold, self.greeted = Found(state, json.loads(claim.turns or "[]")), False
        return self.untold

    def unanswered(self, since: int) -> None:
        """A claim had no answer: whatever is here goes on, for a client that came then.

        When the store is back, only what a later client of another instance has done replaces it.
        """
        self.behind, self.since, self.asked, self.fresh = True, since, 0, False
        self.missing()  # or what others have written
        if self.standing in (Standing.LOST, Standing.REFUSED):
            self.standing = Standing.ABSENT

    def overtaken(self) -> None:
        """What was found is for the next connection of its client, who is at another instance by now."""
        self.standing, self.untold = Standing.LOST, None

    def replaced(self, by: "Copy") -> None:
        """Chainlit has a new session of this id."""
        by.fresh = self.standing is not Standing.OVER
        self.standing, self.connected = Standing.LOST, False

    def end(self, turn: Turn) -> bool:
        """It ends; whether it was under way."""
        if turn not in self.turns:
            return False
        self.turns.remove(turn)
        self.begun = self.begun or turn.greets or turn.text is not None
        return True

    def hello(self) -> Found | None:
        """The client said hello; returns what it has to be told, once."""
        found, self.greeted = None if self.greeted else self.untold, True
        return found

    def survived(self) -> bool:
        """What was found is restored, and did no harm here; whether the store has to hear of it."""
        if self.taken <= 1:
            return False
        self.taken, self.noted = 0, ""  # so it is written, with or without turns
        return True

    def told(self, turn: Any = None) -> None:
        """It was told of a turn, or that was begun here; None: of all that was found."""
        if turn is None:
            self.untold = None
        elif self.untold is not None:
            left = [other for other in self.untold.turns if other is not turn]
            self.untold = Found(self.untold.state, left)

    def due(self, number: int, *, anyway: bool = False) -> Write | None:
        """What the store has to be told, or would be told `anyway`."""
        if self.standing is Standing.OVER:
            return Write(self.fence, number, "", None) if self.fence else None
        if self.standing is not Standing.CLAIMED:
            return None
        if self.state is not None and hash(self.state) == self.saved and not anyway:
            self.state = None
        cut = [json.dumps(turn) for turn in self.untold.turns] if self.untold else []
        texts = [*cut, *(turn.text for turn in self.turns if turn.text is not None)]
        turns = f"[{', '.join(texts)}]" if texts else None
        if self.state is None and turns == self.noted and not anyway:
            return None
        self.asked = number
        return Write(self.fence, number, self.state, turns)

    def wrote(self, write: Write, outcome: Outcome | None) -> None:
        """What became of a write; None: the store failed it."""
        self.behind = outcome is None
        if outcome is None:
            return
        if self.standing is Standing.OVER:
            self.fence = 0  # done
        elif outcome is Outcome.REFUSED:
            self.standing = Standing.ABSENT if self.since else Standing.LOST
        else:
            if write.number == self.asked:
                self.since = 0  # it is ours: who claims it from now on has a client that came later
            self.number, self.noted = write.number, write.turns
            if write.state is not None:
                self.saved = hash(write.state)
                if self.state is write.state:  # no turn has ended meanwhile
                    self.state = None
            elif outcome is Outcome.ANEW:
                self.saved = None

    def missing(self) -> None:
        """The record is gone, or not as this instance left it: all of it is written again."""
        self.saved = self.noted = None

    def left(self, *, over: bool) -> None:
        """Its client has gone; `over` if the session is, too."""
        self.connected = False
        if over:
            self.turns.clear()
            if self.standing in (Standing.ABSENT, Standing.CLAIMED):
                self.standing = Standing.OVER
