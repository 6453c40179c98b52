"""Traffic: client connections, exchanges, connections to backends, tunnels. Start reading at `exchange`."""
