"""How the ticket of a save reaches the ranks: inside the plans that the coordinator sends.

It does not stay there. A planner that caches plans gives a rank the plan of an earlier save, with
that save's ticket in it. So a ticket that arrives, that is: is unpickled, is put where the thread
that runs the save looks for it; the one that arrived last is that of the save going on.
"""

from __future__ import annotations

import threading
from typing import Any

_arrived = threading.local()


class Ticket:
    def __init__(self, text: str, name: str, rank: int, ranks: int) -> None:
        self.text = text  # the engine's ticket
        self.name = name  # of the checkpoint
        self.rank = rank
        self.ranks = ranks

    def deliver(self) -> None:
        _arrived.ticket = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (self.text, self.name, self.rank, self.ranks)


def _receive(text: str, name: str, rank: int, ranks: int) -> Ticket:
    ticket = Ticket(text, name, rank, ranks)
    ticket.deliver()
    return ticket


def take_ticket(name: str) -> Ticket:
    ticket: Ticket | None = getattr(_arrived, "ticket", None)
    _arrived.ticket = None
    if ticket is None or ticket.name != name:
        raise RuntimeError(
            f"no ticket arrived for {name}: write_data comes after prepare_global_plan, in the "
            "same thread, and plans travel pickled"
        )
    return ticket
