"""The commands on the pages that no test runs or parses as they stand, and what holds them right instead.

Everything else that a page tells to type is either run (`tests/system/test_pages.py`, and what it names) or
parsed by the program that it is for (`test_commands.py`).
"""

_CLUSTER = "needs a cluster: objects by tests/deploy/test_kubernetes.py, names and values by test_not_run.py"
_NEEDS_SYSTEMD = "needs a machine that systemd has booted: "
_NO_ENGINE = "needs a container engine: "
_COMPOSE = (
    _NO_ENGINE
    + "compose.yaml is read by tests/deploy/test_compose.py, the names and words by test_not_run.py"
)

_RUN_BY_COMPOSE = "run by tests/deploy/test_compose.py"

NOT_RUN = {
    "docker build -t chainlit-proxy .": _NO_ENGINE + "the steps of the build are read by test_dockerfile.py",
    "docker build --build-arg BUILD=interpreted -t chainlit-proxy .": _NO_ENGINE
    + "the argument and its stages are read by test_dockerfile.py",
    "docker run -p 8000:8000 -v ./site:/etc/chainlit-proxy:ro --stop-timeout 35 chainlit-proxy": _NO_ENGINE
    + "the port, the path and the user are read by test_dockerfile.py",
    "kill -HUP 4711": "a made-up process id; the signal is sent by tests/system/test_reload.py",
    'eval "$(chainlit-proxy completion bash)"': "run by tests/docs/test_manual.py",
    "python -m venv /opt/chainlit-proxy": _NEEDS_SYSTEMD
    + "an ordinary environment, as the Makefile makes one",
    "/opt/chainlit-proxy/bin/pip install .": _NEEDS_SYSTEMD
    + "the wheel is built by tests/deploy/test_release.py",
    "install -D -m 644 proxy.yaml /etc/chainlit-proxy/proxy.yaml": _NEEDS_SYSTEMD + "a copy",
    "install -m 644 deploy/systemd/chainlit-proxy.socket deploy/systemd/chainlit-proxy.service "
    "/etc/systemd/system/": _NEEDS_SYSTEMD + "systemd reads both in tests/deploy/test_systemd.py",
    "install -m 644 deploy/systemd/chat@.service /etc/systemd/system/": _NEEDS_SYSTEMD
    + "systemd reads it in tests/deploy/test_systemd.py",
    "systemctl daemon-reload": _NEEDS_SYSTEMD + "it has no arguments",
    "systemctl enable --now chainlit-proxy.socket chainlit-proxy.service": _NEEDS_SYSTEMD
    + "names of the units",
    "systemctl restart chainlit-proxy.service": _NEEDS_SYSTEMD + "done in tests/system/test_activation.py",
    "systemctl stop chainlit-proxy.socket chainlit-proxy.service": _NEEDS_SYSTEMD + "names of the units",
    "systemd-run --quiet --pipe --wait --property=EnvironmentFile=-/etc/chainlit-proxy/environment "
    "/opt/chainlit-proxy/bin/chainlit-proxy check -c /etc/chainlit-proxy/proxy.yaml": _NEEDS_SYSTEMD
    + "the command of the proxy is read by tests/deploy/test_systemd.py",
    "systemctl reload chainlit-proxy.service": _NEEDS_SYSTEMD + "done in tests/system/test_reload.py",
    "[ -e /etc/chat/environment ] || echo CHAINLIT_PROXY_SESSIONS=sqlite:///var/lib/chat/sessions.db "
    "| install -D -m 600 /dev/stdin /etc/chat/environment": _NEEDS_SYSTEMD
    + "run by tests/deploy/test_instances_booted.py",
    "systemctl enable --now chat@8001.service chat@8002.service": _NEEDS_SYSTEMD
    + "the unit is read by tests/deploy/test_systemd.py",
    "systemctl restart chat@8001.service": _NEEDS_SYSTEMD + "a unit of the reader's own",
    "[ -e .env ] || install -m 600 /dev/null .env": _RUN_BY_COMPOSE,
    'grep -qs ^ADMIN_TOKEN= .env || echo "ADMIN_TOKEN=$(openssl rand -hex 16)" >> .env': _RUN_BY_COMPOSE,
    'grep -qs ^HEALTH_SECRET= .env || echo "HEALTH_SECRET=$(openssl rand -hex 32)" >> .env': _RUN_BY_COMPOSE,
    "docker compose up --build --detach": _COMPOSE,
    "docker compose exec proxy chainlit-proxy status": _COMPOSE,
    "docker compose stop chat-b": _COMPOSE,
    "docker compose up --detach chat-d": _COMPOSE,
    "docker compose kill --signal HUP proxy": _COMPOSE,
    "docker compose exec proxy chainlit-proxy drain chat-a --wait": _COMPOSE,
    "docker compose build chat-a": _COMPOSE,
    "docker compose up --detach --no-deps chat-a": _COMPOSE,
    "docker compose exec proxy chainlit-proxy ready chat-a": _COMPOSE,
    "kubectl create namespace chat": _CLUSTER,
    "kubectl --namespace chat create secret generic chainlit "
    "--from-literal=admin-token=$(openssl rand -hex 16) --from-literal=hook-token=$(openssl rand -hex 16) "
    "--from-literal=affinity-secret=$(openssl rand -hex 32) "
    "--from-literal=sessions-url=redis://:PASSWORD@valkey:6379/0 "
    "--from-literal=auth-secret=$(openssl rand -hex 32)": _CLUSTER,
    "kubectl apply -k .": _CLUSTER,
    "kubectl apply --namespace chat -k deploy/kubernetes/base": _CLUSTER,
    "helm upgrade --install site deploy/kubernetes/chart --namespace chat --set "
    "proxy.image=registry.example.com/chainlit-proxy:0.1.0 --set "
    "chat.image=registry.example.com/chat:42 --set 'proxy.trusted={10.244.0.0/16}' --set "
    "chat.replicas=5 --set serviceMonitor.enabled=true": _CLUSTER,
    "helm upgrade site deploy/kubernetes/chart --namespace chat --reset-then-reuse-values --set "
    "chat.replicas=3 --set chat.backends=5": _CLUSTER,
    "helm upgrade site deploy/kubernetes/chart --namespace chat --reset-then-reuse-values --set "
    "chat.backends=null": _CLUSTER,
    "kubectl --namespace chat create secret generic chainlit-health "
    "--from-literal=health-secret=$(openssl rand -hex 32)": _CLUSTER,
    "helm upgrade site deploy/kubernetes/chart --namespace chat --reset-then-reuse-values --set "
    "chat.healthSecret=chainlit-health": _CLUSTER,
    "helm upgrade site deploy/kubernetes/chart --namespace chat --reset-then-reuse-values --set "
    "chat.healthSecret=chainlit-health --set proxy.healthSecret=chainlit-health": _CLUSTER,
    "helm upgrade site deploy/kubernetes/chart --namespace chat --reset-then-reuse-values --set "
    "proxy.discovery.enabled=true --set chat.autoscaling.keda.enabled=true --set "
    "chat.autoscaling.keda.server=http://prometheus-operated.monitoring.svc:9090": _CLUSTER,
    "docker build --target proxy -t chainlit-proxy:0.1.0 .": _NO_ENGINE
    + "the stages are built by tests/deploy/test_images.py",
    "docker build --target chat -t chat:1 .": _NO_ENGINE
    + "the stages are built by tests/deploy/test_images.py",
    "kind load docker-image chainlit-proxy:0.1.0 chat:1": _CLUSTER,
    "kubectl run --rm --stdin --image busybox --restart Never try -- wget -T 5 -O - "
    "http://chat-0.chat.chat.svc.cluster.local.:8000/health": _CLUSTER,
    "kubectl --namespace chat exec deploy/chainlit-proxy -- chainlit-proxy status": _CLUSTER,
    "kubectl --namespace chat port-forward deploy/chainlit-proxy 9901": _CLUSTER,
    "kubectl --namespace chat rollout restart statefulset/chat": _CLUSTER,
    "kubectl --namespace chat rollout status statefulset/chat": _CLUSTER,
}
