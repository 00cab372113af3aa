# GenFilt in front of vLLM's CPU build. On GPUs start from the image of vLLM 0.32.0 and install this package with --no-deps.
#   make image-genfilt
#   docker run --read-only --tmpfs /tmp --shm-size=1g --volume genfilt-cache:/var/cache/genfilt -p 8010:8010 querylife-genfilt
ARG BASE=debian:12.11-slim

FROM ${BASE} AS python
# g++: for kernels that PyTorch compiles; libnuma, libgomp, TCMalloc: of vLLM's CPU build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ libgomp1 libnuma1 libtcmalloc-minimal4 \
        python3.11 python3.11-dev python3.11-venv \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 querylife \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /var/cache/genfilt --shell /usr/sbin/nologin querylife

FROM python AS installed
COPY requirements/vllm.lock /tmp/vllm.lock
RUN python3.11 -m venv /opt/querylife \
    && /opt/querylife/bin/pip install --no-cache-dir --no-deps --requirement /tmp/vllm.lock
COPY . /src
RUN /opt/querylife/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src \
    && /opt/querylife/bin/python -m genfilt_server.generation.environment

FROM python
COPY --from=installed /opt/querylife /opt/querylife
USER 10001:10001
WORKDIR /srv
# The generator is converted once and kept in the cache, which is a volume.
ENV PATH=/opt/querylife/bin:$PATH PYTHONDONTWRITEBYTECODE=1 QUERYLIFE_LOG=json HOME=/var/cache/genfilt HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
VOLUME /var/cache/genfilt
EXPOSE 8010 8011
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import grpc, sys; from grpc_health.v1 import health_pb2 as pb, health_pb2_grpc; sys.exit(health_pb2_grpc.HealthStub(grpc.insecure_channel('127.0.0.1:8010')).Check(pb.HealthCheckRequest(), timeout=9).status != 1)"]
ENTRYPOINT ["genfilt-server"]
CMD ["smollm2-135m", "--host", "0.0.0.0", "--port", "8010", "--metrics-port", "8011", "--metrics-host", "0.0.0.0"]
