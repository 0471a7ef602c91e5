"""The picker as a server of ext_proc, for gateways that stand on Envoy."""
