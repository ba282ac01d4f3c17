"""The benchmark suite: ulvm and its peers on one machine, in one run, in turns.

`python -m bench` (or `make bench`) measures, `python -m bench.report` makes the documents from what
was measured. The way through the modules: `rows` says what is measured, `contestants` who serves,
`fio` puts the load on, `model` holds what came out and judges it, `report` and `chart` show it.
"""
