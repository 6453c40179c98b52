# Completion for bash, loaded when the command is first completed.
eval "$(_CHAINLIT_PROXY_COMPLETE=bash_source chainlit-proxy)"
