# Completion for bash, loaded when the command is first completed.
eval "$(chainlit-proxy completion bash)"
