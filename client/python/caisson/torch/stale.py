"""Notices that training does not change what it should: a parameter that the optimizer was never
given, or that was frozen by mistake, is the same in every checkpoint."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from caisson import CaissonError, NotFoundError, Store, _native
from caisson.torch.location import Location

_log = logging.getLogger(__name__)


class StaleTensorWarning(UserWarning):
    """Trainable tensors have the content that they had in the checkpoint before."""


def latest_name(store: _native.Store, target: Location) -> str | None:
    """The checkpoint that a new one of the same run is compared with."""
    try:
        return store.info(f"{target.name.rpartition('/')[0]}/latest").pinned
    except NotFoundError:
        return None


def warn_of_stale(target: Location, before: str, trainable: Sequence[str]) -> None:
    """Compares content ids, which are there; no tensor is read."""
    try:
        with Store(target.root) as store:
            changed = {change.name for change in store.diff(before, target.name).changes}
    except (CaissonError, OSError) as error:
        _log.info("%s was not compared with %s: %s", target, before, error)
        return
    stale = [name for name in trainable if name not in changed]
    if stale:
        more = f" and {len(stale) - 5} more" if len(stale) > 5 else ""
        warnings.warn(
            f"trainable, and the same in {target.name} as in {before.partition('@')[0]}: "
            f"{', '.join(stale[:5])}{more}. Does the optimizer have them, with gradients?",
            StaleTensorWarning,
            stacklevel=2,
        )
