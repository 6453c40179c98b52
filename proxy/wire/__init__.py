"""Bytes and their meaning: heads, cookies, packets, frames. Pure: no sockets, no clocks, no logging."""
