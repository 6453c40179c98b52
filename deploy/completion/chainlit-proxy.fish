# Completion for fish, loaded when the command is first completed.
_CHAINLIT_PROXY_COMPLETE=fish_source chainlit-proxy | source
