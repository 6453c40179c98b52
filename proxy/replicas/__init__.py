"""The local supervisor: N Chainlit instances of one app on loopback ports.

Each replica is started the way `chainlit run` starts, watched, restarted when it dies, and stopped with the
supervisor, however the supervisor ends. What the replicas are used for is not known here: the owner reads
`Supervisor.replicas` and listens to the events.
"""

from proxy.replicas.keeper import forget
from proxy.replicas.launch import SHARING
from proxy.replicas.process import kept
from proxy.replicas.replica import Replica, ReplicaError, ReplicaEvent, ReplicaEventKind, ReplicaState
from proxy.replicas.restarts import RestartRule
from proxy.replicas.supervisor import LAUNCHER, REFUSED, Supervisor, check, require_chainlit

__all__ = [
    "LAUNCHER",
    "REFUSED",
    "SHARING",
    "Replica",
    "ReplicaError",
    "ReplicaEvent",
    "ReplicaEventKind",
    "ReplicaState",
    "RestartRule",
    "Supervisor",
    "check",
    "forget",
    "kept",
    "require_chainlit",
]
