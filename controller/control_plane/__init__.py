"""The control plane in a cluster: each Gateway has a data plane of its own, whose instances ask for what they serve."""
