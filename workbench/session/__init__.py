"""The process boundary: protocol, transport, client, worker, lanes."""
