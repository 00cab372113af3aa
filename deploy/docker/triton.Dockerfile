# Triton under `querylife serve`, CPU profile. The context is the repository after `make repository`: it holds the exported towers.
#   make image-triton                       (PRECISION=bf16: with OpenVINO, which bf16 towers need)
#   docker run --read-only --tmpfs /tmp --volume querylife-towers:/var/cache/querylife --shm-size=256m -p 8001:8001 -p 8002:8002 -p 8003:8003 querylife-triton
ARG BASE=debian:12.11-slim

FROM ${BASE} AS python
# libpython: Triton's Python backend is linked to it. Debian keeps one version of each package: there is none to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libpython3.11 python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 querylife \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin querylife \
    && install --directory --owner 10001 --group 10001 /var/cache/querylife

FROM python AS installed
ARG PRECISION=fp32
COPY requirements/images/triton.lock requirements/openvino.lock /tmp/
RUN python3.11 -m venv /opt/querylife \
    && /opt/querylife/bin/pip install --no-cache-dir --no-deps --requirement /tmp/triton.lock \
    && if [ "$PRECISION" = bf16 ]; then \
        /opt/querylife/bin/pip install --no-cache-dir --no-deps --requirement /tmp/openvino.lock; fi
COPY . /src
RUN /opt/querylife/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src \
    # The backend's files are laid out now: later the file system is read-only.
    && /opt/querylife/bin/python -c "from querylife.serving.supervisor.supervisor import find_installation; find_installation()" \
    && cp -r /src/model_repository /srv/model_repository

FROM python
COPY --from=installed /opt/querylife /opt/querylife
COPY --from=installed /srv/model_repository /srv/model_repository
USER 10001:10001
WORKDIR /srv
# Towers as this machine's processor wants them are written to the cache, which is a volume, at the first start.
ENV PATH=/opt/querylife/bin:$PATH PYTHONDONTWRITEBYTECODE=1 QUERYLIFE_LOG=json XDG_CACHE_HOME=/var/cache
VOLUME /var/cache/querylife
EXPOSE 8001 8002 8003
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8003/ready', timeout=4)"]
ENTRYPOINT ["querylife", "serve", "--host", "0.0.0.0", "--metrics-host", "0.0.0.0", "--probe-port", "8003"]
