"""The configurations of the proxies under measurement, each in the form that suits Chainlit best.

Each holds browsers by a cookie of its own, sends a new one to the instance with the fewest connections,
gives an instance up at once that refuses, and not one that is only slow; it keeps connections to the
instances, adds X-Forwarded-For, writes an access log to a file, and checks health where it can. nginx of
Debian has neither health checks nor a cookie of its own: it hashes Chainlit's.
"""

from proxy.config import Config

# Clients are counted as by default, but may ask as often as the load generator does.
_COUNTED = [name for name in ("requests_per_second", "sessions_per_minute") if getattr(Config().limits, name)]
_LIMITS = ", ".join(f"{name}: 1000000" for name in (*_COUNTED, "burst"))

PROXY = (
    """\
listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin}}}
backends:
{backends}
health: {{type: http, path: /health, interval: 2}}
log: {{format: json, access: true, level: info}}
limits: {{"""
    + _LIMITS
    + "}}\n"
)

_HAPROXY = """\
global
    nbthread 1
    log stdout format raw local0
    stats socket {folder}/socket mode 600 level admin
defaults
    mode http
    log global
    option httplog
    option forwardfor
    option redispatch 1
    timeout connect 500ms
    timeout client 75s
    timeout server 75s
    timeout tunnel 90s
frontend page
    bind 127.0.0.1:{port}
    default_backend chainlit
backend chainlit
    balance leastconn
    http-reuse always
@
    option httpchk GET /health
    default-server check inter 2s fall 20 rise 2 observe layer4 error-limit 1 on-error mark-down
{backends}
"""
_COOKIE = "    cookie SRV insert indirect nocache"
HAPROXY = _HAPROXY.replace("@", _COOKIE)
# The sid stands in the answer to a handshake, 0{"sid":"..., and in the query of all that follows.
HAPROXY_LEARNING = _HAPROXY.replace(
    "@",
    _COOKIE
    + """
    stick-table type string len 64 size 1m expire 1h
    acl opens path_end /ws/socket.io/ /ws/socket.io
    http-request set-var(txn.opens) bool(true) if opens !{{ url_param(sid) -m found }}
    http-response wait-for-body time 2s if {{ var(txn.opens) -m bool }}
    stick match url_param(sid)
    stick store-response res.body,bytes(1),json_query('$.sid') if {{ var(txn.opens) -m bool }}""",
)

# What every nginx here has in common: its folders, the session in the cookie, and how requests are passed on.
NGINX_SESSION = """\
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_cookie $session {{ default $remote_addr; "~X-Chainlit-Session-id=(?<id>[^;]+)" $id; }}
"""
NGINX_PASS = """\
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://chainlit;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $onward;
            proxy_buffering off;
"""


def _nginx(placement: str) -> str:
    return (
        """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
    access_log {folder}/access.log;
    keepalive_requests 10000000;
"""
        + NGINX_SESSION
        + """\
    map $http_upgrade $onward {{ default upgrade; "" ""; }}
    upstream chainlit {{
"""
        + placement
        + """\
{backends}
        keepalive 128;
        keepalive_requests 10000000;
    }}
"""
        + NGINX_PASS
        + """\
            proxy_request_buffering off;
            client_max_body_size 0;
            proxy_connect_timeout 500ms;
            proxy_read_timeout 90s;
        }}
    }}
}}
"""
    )


NGINX = _nginx("        hash $session consistent;\n")
NGINX_STICKY = _nginx("""\
        zone chainlit 256k;
        least_conn;
        sticky cookie SRV path=/ httponly;
""")

ENVOY = """\
admin:
  address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
HttpConnectionManager
          stat_prefix: page
          use_remote_address: true
          stream_idle_timeout: 90s
          upgrade_configs: [{{upgrade_type: websocket}}]
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {folder}/access.log
          http_filters:
          - name: envoy.filters.http.stateful_session
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession
              session_state:
                name: envoy.http.stateful_session.cookie
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.\
CookieBasedSessionState
                  cookie: {{name: SRV, path: /}}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: chat
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route:
                  cluster: chainlit
                  timeout: 0s
                  retry_policy: {{retry_on: connect-failure, num_retries: 1}}
  clusters:
  - name: chainlit
    type: STATIC
    lb_policy: LEAST_REQUEST
    connect_timeout: 0.5s
    circuit_breakers:
      thresholds:
      - {{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}
    health_checks:
    - timeout: 2s
      interval: 2s
      unhealthy_threshold: 20
      healthy_threshold: 2
      http_health_check: {{path: /health}}
    outlier_detection: {{consecutive_local_origin_failure: 1, split_external_local_origin_errors: true}}
    load_assignment:
      cluster_name: chainlit
      endpoints:
      - lb_endpoints:
{backends}
"""

CADDY = """\
{{
    admin off
    auto_https off
    persist_config off
}}
http://:{port} {{
    bind 127.0.0.1
    log {{
        output file {folder}/access.log {{
            roll_disabled
        }}
    }}
    reverse_proxy {{
{backends}
        lb_policy cookie SRV {{
            fallback least_conn
        }}
        lb_try_duration 1s
        fail_duration 2s
        health_uri /health
        health_interval 2s
        health_timeout 2s
        health_fails 20
        flush_interval -1
        transport http {{
            dial_timeout 500ms
            keepalive_idle_conns_per_host 128
        }}
    }}
}}
"""

TRAEFIK = """\
entryPoints:
  page:
    address: 127.0.0.1:{port}
    transport: {{respondingTimeouts: {{readTimeout: 0s, idleTimeout: 90s}}}}
providers: {{file: {{filename: {folder}/routes.yaml, watch: false}}}}
accessLog: {{filePath: {folder}/access.log}}
log: {{level: ERROR}}
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
"""
TRAEFIK_ROUTES = """\
http:
  routers:
    all: {{rule: "PathPrefix(`/`)", service: chainlit, entryPoints: [page]}}
  serversTransports:
    near: {{maxIdleConnsPerHost: 128, forwardingTimeouts: {{dialTimeout: 500ms, idleConnTimeout: 75s}}}}
  services:
    chainlit:
      loadBalancer:
        strategy: p2c
        sticky: {{cookie: {{name: SRV, httpOnly: true}}}}
        healthCheck: {{path: /health, interval: 2s, timeout: 2s}}
        serversTransport: near
        servers:
{backends}
"""
