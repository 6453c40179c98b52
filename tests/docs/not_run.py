"""The commands on the pages that no test runs or parses as they stand, and what holds them right instead.

Everything else that a page tells to type is either run (`tests/system/test_pages.py`, and what it names) or
parsed by the program that it is for (`test_commands.py`).
"""

_NO_ENGINE = "needs a container engine: "

NOT_RUN = {
    "docker build -t chainlit-proxy .": _NO_ENGINE + "the steps of the build are read by test_dockerfile.py",
    "docker run -p 8000:8000 -v ./proxy.yaml:/etc/chainlit-proxy/proxy.yaml:ro --stop-timeout 35 "
    "chainlit-proxy": _NO_ENGINE + "the port, the path and the user are read by test_dockerfile.py",
    "mkdir -p instance-a instance-b": "run by tests/system/test_pages.py",
    "kill -HUP 4711": "a made-up process id; the signal is sent by tests/system/test_reload.py",
    'eval "$(_CHAINLIT_PROXY_COMPLETE=bash_source chainlit-proxy)"': "run by tests/test_completion.py",
}
