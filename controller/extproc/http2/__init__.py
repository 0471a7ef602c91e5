"""HTTP/2 as gateways and pickers speak it to each other, both ends of it."""
