"""Sources of backends that come and go while the proxy runs, one module each."""
