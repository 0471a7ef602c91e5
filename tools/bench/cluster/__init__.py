"""Benchmark of a cluster: how soon its resources are live, and what its processes hold in memory."""
