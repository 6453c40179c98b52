# The proxy alone, for `serve`: no Chainlit in it. Built from a checkout, for the configuration site/proxy.yaml:
#
#   docker build -t chainlit-proxy .
#   docker run -p 8000:8000 -v ./site:/etc/chainlit-proxy:ro --stop-timeout 35 chainlit-proxy
#
# Its hot modules are compiled; `--build-arg BUILD=interpreted` leaves them as they are: docs/installing.md.
# `--target chat` builds the example app with Chainlit instead, which shares its sessions: see compose.yaml.

FROM python:3.11-slim AS sources
WORKDIR /src
# Bytecode is in the images: nobody can write it where they run, so each start would compile everything. It is taken
# for that of the source beside it, whatever the times of the files, so it is the same in each build.
ENV COMPILE="python -m compileall -q -j 0 --invalidation-mode unchecked-hash"
# Environments without pip of their own: the images that run get what is needed and no more.
RUN python -m venv --without-pip /opt/chainlit-proxy
COPY pyproject.toml hatch_build.py README.md LICENSE constraints.txt ./
COPY proxy ./proxy
COPY chainlit_proxy ./chainlit_proxy
COPY deploy/man ./deploy/man
COPY deploy/completion ./deploy/completion

FROM sources AS build
ARG BUILD=compiled
# What compiles and strips stays in this stage.
RUN case "$BUILD" in \
        compiled) tools="gcc libc6-dev" ;; \
        interpreted) tools=binutils ;; \
        *) echo "BUILD is '$BUILD'; it can be compiled or interpreted" >&2; exit 2 ;; \
    esac \
    && apt-get update && apt-get install --yes --no-install-recommends $tools && rm -rf /var/lib/apt/lists/*
# The second constraint is for pip from 25.3 on, which does not hold the packages of a build to the first. What is left
# out of other packages' libraries are symbols for debuggers, a sixth of all; ours keep the names of their functions.
RUN if [ "$BUILD" = compiled ]; then \
        export CHAINLIT_PROXY_COMPILED=1 PIP_CONSTRAINT=/src/constraints.txt PIP_BUILD_CONSTRAINT=/src/constraints.txt; \
    fi \
    && pip --python /opt/chainlit-proxy/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
    --constraint constraints.txt '.[acme,dns,docker,kubernetes,otel,redis]' \
    && find /opt/chainlit-proxy/lib -name '*.so' -not -name '*__mypyc*' -exec strip --strip-unneeded {} + \
    && $COMPILE /opt/chainlit-proxy/lib

# Without the source maps of Chainlit's page, a seventh of all: only those who debug it want them.
FROM sources AS build-chat
RUN pip --python /opt/chainlit-proxy/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
    --constraint constraints.txt '.[chainlit,redis]' \
    && find /opt/chainlit-proxy/lib -name '*.js.map' -delete \
    && $COMPILE /opt/chainlit-proxy/lib

# A user that owns nothing here; by number, so that Kubernetes can see that it is not root. Debian has users of its
# own, `proxy` among them. Neither image writes anywhere but below /tmp, so both run with a read-only file system.
FROM python:3.11-slim AS base
RUN groupadd --gid 10001 chainlit \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin chainlit \
    && mkdir /etc/chainlit-proxy
# The official image has none of its own library either.
RUN python -c "import sysconfig; print(sysconfig.get_path('stdlib'))" \
    | xargs python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x 'site-packages|dist-packages|/(test|idlelib|lib2to3|tkinter|ensurepip|turtledemo)/'
ENV PATH=/opt/chainlit-proxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

FROM base AS chat
COPY --from=build-chat /opt/chainlit-proxy /opt/chainlit-proxy
# Of your own app also .chainlit, public and chainlit.md: they are used from here, only uploads are below /tmp.
COPY examples/chat/app.py /srv/chat/app.py
# Whatever the umask of the checkout.
RUN chmod -R a+rX /srv/chat
USER 10001:10001
WORKDIR /srv/chat
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health', timeout=2)"]
ENTRYPOINT ["chainlit-proxy"]
CMD ["replica", "app.py", "--", "--headless", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS proxy
COPY --from=build /opt/chainlit-proxy /opt/chainlit-proxy
# Huge pages for Python's objects, where the kernel leaves that to the program: docs/benchmarks/cpu.md has what it saves.
ENV CHAINLIT_PROXY_ADMIN=http://127.0.0.1:9901 \
    PYTHONMALLOC=malloc \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
USER 10001:10001
WORKDIR /etc/chainlit-proxy
EXPOSE 8000
# The slim image has no curl. /healthz needs no token; the start takes about a second. What `http_proxy` names does not
# lead to this container.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import os; from urllib.request import *; build_opener(ProxyHandler({})).open(os.environ['CHAINLIT_PROXY_ADMIN'] + '/healthz', timeout=2)"]
ENTRYPOINT ["chainlit-proxy"]
CMD ["serve", "-c", "/etc/chainlit-proxy/proxy.yaml"]
