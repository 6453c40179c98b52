"""Whether nothing of a session is on its way, by what was last said on a connection of it.

An app that was asked says within a second that it answers, unless it was asked for nothing that is answered.
So after what either side has said a second is waited, and longer while a message of the client was not heard
to be taken. When a turn has ended to which its client has added nothing, that was the last word: what it
brings about besides comes within a moment. An answer to a question of the app (`cl.AskUserMessage`) ends a
turn, too, for Chainlit says `task_end` before it goes on with it (chainlit/emitter.py, `send_ask_user`): that
client has added something. The rule for all transports. Pure.
"""

from proxy.affinity.session import Session
from proxy.affinity.untaken import Untaken

ENDED = 0.3  # seconds in which an app has said all after the end of a turn
ANSWERED = 1.0  # seconds in which an app that was asked says that it answers
TAKEN = 10.0  # seconds in which it says so at the latest: what was said may be nothing that is answered


def is_silent(now: float, spoke_at: float, session: Session | None, untaken: Untaken) -> bool:
    """Whether what was last said on a connection, at `spoke_at`, has come to its end.

    `untaken` are the messages of the connection.
    """
    if len(untaken):
        return now >= spoke_at + TAKEN
    if session is None or session.ended_at < spoke_at:
        return now >= spoke_at + ANSWERED
    is_over = session.has_ended_alone and not untaken.holds_any
    return now >= session.ended_at + (ENDED if is_over else ANSWERED)
