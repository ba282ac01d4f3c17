"""I/O around the metadata: which devices there are, what lies on them, how a change is committed.

`host` says where things are, `scan` reads, `commit` writes, `pv` makes and unmakes physical
volumes, `archive` keeps the text files, `locks` keeps two commands apart.
"""
