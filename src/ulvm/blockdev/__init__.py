"""Where bytes are: one interface, and files, disks, memory, NBD exports and faults behind it."""
