"""The books that the tests of the opening play; see `playbook`."""

# name, whether it takes over from polls, the book
BOOKS = [
    (
        "a websocket that stays",
        False,
        """
        >> backend 0{"sid":"a"}
        << client 0{"sid":"a"}
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> stays
        << backend 40{"sessionId":"session-S"}
        >> backend 40{"sid":"1"}
        << client 40{"sid":"1"}
        << connected
        << plain, answered here
        """,
    ),
    (
        "a websocket that is moved",
        False,
        """
        >> backend 0{"sid":"a"}
        << client 0{"sid":"a"}
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> client 42["early"]
        >> moves
        << open as new
        >> opened
        << backend 40{"sessionId":"session-S"}
        << backend 42["early"]
        >> backend 0{"sid":"b"}
        >> backend 40{"sid":"2"}
        << client 40{"sid":"2"}
        << connected
        << plain, answered here
        """,
    ),
    (
        "a client that speaks before it is spoken to hears the OPEN of where it ends up",
        False,
        """
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> moves
        << open as new
        >> opened
        << backend 40{"sessionId":"session-S"}
        >> backend 0{"sid":"b"}
        << client 0{"sid":"b"}
        >> backend 40{"sid":"2"}
        << client 40{"sid":"2"}
        << connected
        << plain, answered here
        """,
    ),
    (
        "an upgrade that connects on its websocket and is moved",
        True,
        """
        >> client 2probe
        << backend 2probe
        >> backend 3probe
        << client 3probe
        >> client 5
        << backend 5
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> moves
        << open as new
        >> opened
        << backend 40{"sessionId":"session-S"}
        >> backend 0{"sid":"b"}
        >> backend 40{"sid":"2"}
        << client 40{"sid":"2"}
        << connected
        << plain, answered here
        """,
    ),
    (
        "an upgrade whose session was named by a poll",
        True,
        """
        >> client 2probe
        << backend 2probe
        >> settled
        << plain
        """,
    ),
    (
        "an upgrade that polls have moved: the probe is said again, its answer once",
        True,
        """
        >> client 2probe
        << backend 2probe
        >> backend 3probe
        << client 3probe
        >> backend (ping) x
        << client (ping) x
        >> moved
        << open for its sid
        >> client 5 | 42["hi"]
        >> opened
        << backend 2probe
        << backend 5
        << backend 42["hi"]
        >> settled
        >> backend 3probe
        << plain
        """,
    ),
    (
        "the same, decided before the new websocket is there",
        True,
        """
        >> client 2probe
        << backend 2probe
        >> moved
        << open for its sid
        >> settled
        >> opened
        << backend 2probe
        << plain
        """,
    ),
    (
        "what was collected is said behind the upgrade",
        True,
        """
        >> client 2probe
        << backend 2probe
        >> settled and resumes
        >> backend 3probe
        << client 3probe
        >> client 5
        << backend 5
        << plain
        """,
    ),
    (
        "another namespace first: it is watched until / connects, and what was said is said again",
        False,
        """
        >> backend 0{"sid":"a"}
        << client 0{"sid":"a"}
        >> client 40/admin,{"token":"x"}
        << backend 40/admin,{"token":"x"}
        >> backend 40/admin,{"sid":"1"}
        << client 40/admin,{"sid":"1"}
        >> client 42/admin,7["do"] | 42/admin,8["more"]
        << backend 42/admin,7["do"]
        << backend 42/admin,8["more"]
        >> backend 43/admin,7["done"] | 42/admin,["news"]
        << client 43/admin,7["done"]
        << client 42/admin,["news"]
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> moves
        << open as new
        >> opened 0{"sid":"b"}
        << backend 40/admin,{"token":"x"}
        << backend 42/admin,7["do"]
        << backend 42/admin,8["more"]
        << backend 40{"sessionId":"session-S"}
        >> backend 43/admin,7["done"] | 43/admin,8["done"]
        << client 43/admin,8["done"]
        >> backend 40{"sid":"2"}
        << client 40{"sid":"2"}
        << connected
        >> backend 40/admin,{"sid":"3"}
        << plain, answered here
        """,
    ),
    (
        "binary events and acknowledgements go with their attachments",
        False,
        """
        >> client 40/admin, | 451-/admin,1["file",{"_placeholder":true,"num":0}] | (binary) bytes
        << backend 40/admin,
        << backend 451-/admin,1["file",{"_placeholder":true,"num":0}]
        << backend (binary) bytes
        >> backend 40/admin,{} | 461-/admin,1[{"_placeholder":true,"num":0}] | (binary) back
        << client 40/admin,{}
        << client 461-/admin,1[{"_placeholder":true,"num":0}]
        << client (binary) back
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> moves
        << open as new
        >> opened
        << backend 40/admin,
        << backend 451-/admin,1["file",{"_placeholder":true,"num":0}]
        << backend (binary) bytes
        << backend 40{"sessionId":"session-S"}
        >> backend 40/admin,{} | 461-/admin,1[{"_placeholder":true,"num":0}] | (binary) back | (binary) new
        << client (binary) new
        >> backend 40{}
        << client 40{}
        << connected
        << plain, answered here
        """,
    ),
    (
        "attachments of what goes to / are not taken for those of another namespace",
        False,
        """
        >> client 40/admin, | 451-["file",{"_placeholder":true,"num":0}] | (binary) bytes
        << backend 40/admin,
        << backend 451-["file",{"_placeholder":true,"num":0}]
        << backend (binary) bytes
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> moves
        << open as new
        >> opened
        << backend 40/admin,
        << backend 40{"sessionId":"session-S"}
        """,
    ),
    (
        "a namespace that was refused is not said again, and one that is refused there is told",
        False,
        """
        >> client 40/one, | 40/two, | 42/one,["x"]
        << backend 40/one,
        << backend 40/two,
        << backend 42/one,["x"]
        >> backend 44/one,{"message":"no"} | 40/two,{}
        << client 44/one,{"message":"no"}
        << client 40/two,{}
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> moves
        << open as new
        >> opened
        << backend 40/two,
        << backend 40{"sessionId":"session-S"}
        >> backend 44/two,{"message":"no"} | 40{}
        << client 44/two,{"message":"no"}
        << client 40{}
        << connected
        << plain, answered here
        """,
    ),
    (
        "a refused CONNECT leaves all as it was, and the next one counts",
        False,
        """
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> stays
        << backend 40{"sessionId":"session-S"}
        >> backend 44{"message":"no"}
        << client 44{"message":"no"}
        << refused
        >> client 40{"sessionId":"session-T"}
        << ask session-T
        >> moves
        << open as new
        >> opened
        << backend 40{"sessionId":"session-T"}
        >> backend 40{}
        << client 40{}
        << connected
        << plain, answered here
        """,
    ),
    (
        "a CONNECT that names no session counts when it is taken, too",
        False,
        """
        >> client 40
        << backend 40
        >> client 42["hi"]
        << backend 42["hi"]
        >> backend 40{} | 42["echo"]
        << client 40{}
        << connected
        << plain, client 42["echo"], answered here
        """,
    ),
    (
        "what cannot be meant for / before it connects passes, and is watched on",
        False,
        """
        >> client 42["hi"] | (binary) x | (pong) | 40/x,{"sessionId":"session-X"}
        << backend 42["hi"]
        << backend (binary) x
        << backend (pong)
        << backend 40/x,{"sessionId":"session-X"}
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        """,
    ),
    (
        "fragments are put together",
        False,
        """
        >> client +40/adm+in,
        << backend +40/adm+in,
        >> client +40{"sessionId":+"session-S"}
        << ask session-S
        >> stays
        << backend +40{"sessionId":+"session-S"}
        >> backend +40+{} | 42["x"]
        << client +40+{}
        << connected
        << plain, client 42["x"], answered here
        """,
    ),
    (
        "a backend that could not be reached: it is decided once more",
        False,
        """
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> moves
        << open as new
        >> backend (ping) x
        << client (ping) x
        >> stays
        << backend 40{"sessionId":"session-S"}
        """,
    ),
    (
        "an odd session is refused, wherever it comes",
        False,
        """
        >> client 40/admin,
        << backend 40/admin,
        >> client 40{"sessionId":"../x"}
        << refuse session
        """,
    ),
    (
        "it is refused behind a CONNECT that is not answered yet, too",
        False,
        """
        >> client 40
        << backend 40
        >> client 40{"sessionId":"../x"}
        << refuse session
        """,
    ),
    (
        "polls that move a websocket which connects by itself end it",
        True,
        """
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> moved
        << close
        """,
    ),
    (
        "an upgrade at another proxy than its polls: what / says tells that it is connected",
        True,
        """
        >> client 2probe | 5 | 42["hi"]
        << backend 2probe
        << backend 5
        << backend 42["hi"]
        >> backend 42["task_end"]
        << client 42["task_end"]
        << connected
        << plain
        """,
    ),
    (
        "an upgrade that hears the answer to the CONNECT of a poll: it is that of the session",
        True,
        """
        >> client 2probe | 5
        << backend 2probe
        << backend 5
        >> backend 44{}
        << client 44{}
        << refused
        >> backend 40{}
        << client 40{}
        << connected
        << plain, answered here
        """,
    ),
]
