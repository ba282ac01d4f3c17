"""The judge for commands: scripts typed to LVM2 in the virtual machine and to ulvm.

- `scripts/*.txt` are the scripts, one command a line; `script` reads them and says what a line may
  be.
- `runner` types them, step by step, and looks at the disks after each; it runs in the virtual
  machine, and its subclass in `ours` in a mount namespace whose /dev holds image files.
- `plain` takes out of what was seen what differs by nature (UUIDs, times).
- `differences` is the table of what differs on purpose, and why.
- `recorded/*.json` is what LVM2 did, plain; `test_commands` compares ulvm with it, and it with
  LVM2.
- `pending.txt` lists steps that differ and should not.

`python -m tests.kernel.commands [NAME...]` runs scripts by hand and shows what differs.
"""
