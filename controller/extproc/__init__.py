"""The protocol between a gateway and an endpoint picker: Envoy's ext_proc, as both ends speak it."""
