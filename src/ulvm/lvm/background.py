"""Commands that go on by themselves: who starts one does not wait for its end."""

from __future__ import annotations

import subprocess

from ulvm.lvm.session import Session

__all__ = ["start_background"]


def start_background(session: Session, *words: str) -> None:
    """Start an ulvm command as a process of its own; on trial nothing, since it would change
    things."""
    if session.host.trial:
        return
    subprocess.Popen(
        session.host.command(*words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
