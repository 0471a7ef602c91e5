# syntax=docker/dockerfile:1

# Infergate on the official NGINX, whose njs module it uses. NGINX is above the safe floor; see docs/operations.md.
ARG NGINX=nginx:1.31.7

FROM ${NGINX} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY controller controller
COPY templates templates
COPY nginx nginx
COPY crds crds
COPY tools/__init__.py tools/compile.py tools/wheel.py tools/
# The hot paths of the picker are compiled; the compiler stays in this stage.
ENV INFERGATE_COMPILE=1
RUN python3 -m venv /opt/infergate \
    && /opt/infergate/bin/pip install --no-cache-dir . \
    && /opt/infergate/bin/python -m compileall -q /opt/infergate/lib \
    && /opt/infergate/bin/pip uninstall --yes setuptools pip

FROM ${NGINX}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Infergate" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.description="An inference gateway on NGINX" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 infergate \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/infergate --create-home infergate
COPY --from=build /opt/infergate /opt/infergate
ENV PATH=/opt/infergate/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 INFERGATE_LOG_FORMAT=json
USER 10001:10001
# The official image has SIGQUIT, which is for NGINX; its supervisor ends with SIGTERM.
STOPSIGNAL SIGTERM
WORKDIR /var/lib/infergate
VOLUME ["/var/lib/infergate"]
# Resources are mounted at /etc/infergate.
HEALTHCHECK --interval=10s --timeout=2s \
    CMD ["curl", "--fail", "--silent", "--unix-socket", "state/run/control.sock", "http://infergate/infergate/version"]
ENTRYPOINT ["infergate"]
CMD ["run", "/etc/infergate", "--listen", "0.0.0.0", "--state", "/var/lib/infergate/state"]
