"""Benchmarks: what a request costs, how soon a change is live, and what the processes hold in memory.

They print figures and ratios and write them as JSON. They judge nothing but the bars of docs/performance.md, and a bar
that is missed fails no run: figures of a shared machine are read by people.
"""
