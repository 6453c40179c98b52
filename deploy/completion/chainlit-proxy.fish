# Completion for fish, loaded when the command is first completed.
chainlit-proxy completion fish | source
