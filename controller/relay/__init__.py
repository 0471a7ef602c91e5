"""The relay: a process beside NGINX through which requests of pools with an external picker pass."""
