# The proxy alone, for `serve`: no Chainlit in it. Built from a checkout:
#
#   docker build -t chainlit-proxy .
#   docker run -p 8000:8000 -v ./proxy.yaml:/etc/chainlit-proxy/proxy.yaml:ro --stop-timeout 35 chainlit-proxy

FROM python:3.11-slim AS build
WORKDIR /src
# An environment without pip of its own: the image that runs gets what is needed and no more.
RUN python -m venv --without-pip /opt/chainlit-proxy
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY proxy ./proxy
COPY deploy/man ./deploy/man
COPY deploy/completion ./deploy/completion
RUN pip --python /opt/chainlit-proxy/bin/python install --no-cache-dir --disable-pip-version-check \
    --constraint constraints.txt .

FROM python:3.11-slim
# A user that owns nothing here; by number, so that Kubernetes can see that it is not root.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin proxy \
    && mkdir /etc/chainlit-proxy
COPY --from=build /opt/chainlit-proxy /opt/chainlit-proxy
ENV PATH=/opt/chainlit-proxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    CHAINLIT_PROXY_ADMIN=http://127.0.0.1:9901
USER 10001:10001
WORKDIR /etc/chainlit-proxy
EXPOSE 8000
# The slim image has no curl. /healthz needs no token; the start takes about a second.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['CHAINLIT_PROXY_ADMIN'] + '/healthz', timeout=2)"]
ENTRYPOINT ["chainlit-proxy"]
CMD ["serve", "-c", "/etc/chainlit-proxy/proxy.yaml"]
