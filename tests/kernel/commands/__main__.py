"""`python -m tests.kernel.commands [--record] [--pending] [NAME...]`: what differs, by hand.

Scripts that are new or have changed, and with --record all that are named, are typed to LVM2 first
and recorded. All scripts when none is named. What is known to differ is shown too, marked;
--pending writes that list anew for these scripts.
"""

from __future__ import annotations

import sys

from tests.kernel.commands import sides
from tests.kernel.commands.compare import differing, read_pending, write_pending
from tests.kernel.commands.script import read_scripts


def main() -> None:
    words = sys.argv[1:]
    scripts = read_scripts(word for word in words if not word.startswith("-"))
    stale = [s for s in scripts if "--record" in words or sides.load(s) is None]
    if stale:
        recorded = sides.theirs(stale)
        for script in stale:
            sides.save(script, recorded[script.name])
    found = sides.ours(scripts)
    problems: dict[str, str] = {}
    for script in scripts:
        theirs = sides.load(script)
        assert theirs is not None
        problems |= differing(script, found[script.name], theirs, set())
    pending = read_pending()
    for step, lines in problems.items():
        print(f"{step}{' (pending)' if step in pending else ''}\n{lines}")
    names = [script.name for script in scripts]
    mended = [p for p in pending if p not in problems and p.split(":")[0] in names]
    for step in mended:
        print(f"no longer pending: {step}")
    print(f"{len(problems)} of {sum(len(s.steps) for s in scripts)} steps differ")
    if "--pending" in words:
        others = [p for p in pending if p.split(":")[0] not in names]
        write_pending(sorted([*others, *problems]))


main()
