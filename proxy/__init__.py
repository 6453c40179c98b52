"""A sticky-session reverse proxy that makes several Chainlit instances behave as one."""

__version__ = "0.1.0"
