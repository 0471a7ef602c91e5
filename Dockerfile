# syntax=docker/dockerfile:1

# Infergate on the official NGINX, whose njs module it uses. NGINX is above the safe floor; see docs/operations.md.
ARG NGINX=nginx:1.31.7

FROM ${NGINX} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY controller controller
COPY templates templates
COPY nginx nginx
COPY crds crds
RUN python3 -m venv /opt/infergate \
    && /opt/infergate/bin/pip install --no-cache-dir . \
    && /opt/infergate/bin/pip uninstall --yes pip

FROM ${NGINX}
LABEL org.opencontainers.image.title="Infergate" \
      org.opencontainers.image.description="An inference gateway on NGINX" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/infergate --create-home infergate
COPY --from=build /opt/infergate /opt/infergate
ENV PATH=/opt/infergate/bin:$PATH PYTHONUNBUFFERED=1 INFERGATE_LOG_FORMAT=json
USER 10001
WORKDIR /var/lib/infergate
VOLUME ["/var/lib/infergate"]
# Resources are mounted at /etc/infergate.
HEALTHCHECK --interval=10s --timeout=2s \
    CMD ["curl", "--fail", "--silent", "--unix-socket", "state/run/control.sock", "http://infergate/infergate/version"]
ENTRYPOINT ["infergate"]
CMD ["run", "/etc/infergate", "--listen", "0.0.0.0", "--state", "/var/lib/infergate/state"]
