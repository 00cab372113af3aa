# The HTTP gateway.
#   make image-gateway
#   docker run --read-only --tmpfs /tmp -p 8080:8080 querylife-gateway --triton HOST:8001
ARG BASE=debian:12.11-slim

FROM ${BASE} AS python
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 querylife \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin querylife

FROM python AS installed
COPY requirements/images/gateway.lock /tmp/gateway.lock
RUN python3.11 -m venv /opt/querylife \
    && /opt/querylife/bin/pip install --no-cache-dir --no-deps --requirement /tmp/gateway.lock
COPY . /src
RUN /opt/querylife/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src

FROM python
COPY --from=installed /opt/querylife /opt/querylife
USER 10001:10001
WORKDIR /srv
ENV PATH=/opt/querylife/bin:$PATH PYTHONDONTWRITEBYTECODE=1 QUERYLIFE_LOG=json
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/ready', timeout=4)"]
ENTRYPOINT ["querylife", "gateway", "--host", "0.0.0.0"]
