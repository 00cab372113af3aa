# Triton under `querylife serve`, GPU profile, in NVIDIA's image. Plans fit one kind of GPU and one TensorRT version: they are built
# by `make engines` in this image on the machine that serves, and mounted at /srv/model_repository.
#   docker build --file deploy/docker/triton-gpu.Dockerfile --tag querylife-triton-gpu .
#   docker run --gpus 1 --read-only --tmpfs /tmp --shm-size=256m --volume "$PWD/model_repository:/srv/model_repository:ro" ...
ARG BASE=nvcr.io/nvidia/tritonserver:25.11-py3
FROM ${BASE}

COPY requirements/images/triton-gpu.lock /tmp/triton-gpu.lock
# The image's own Python runs the backends, so the packages go into it and not into an environment.
RUN pip install --no-cache-dir --break-system-packages --no-deps --requirement /tmp/triton-gpu.lock \
    && rm /tmp/triton-gpu.lock
COPY . /src
RUN pip install --no-cache-dir --break-system-packages --no-deps --no-build-isolation /src \
    && rm -rf /src \
    && groupadd --gid 10001 querylife \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin querylife

USER 10001:10001
WORKDIR /srv
ENV PYTHONDONTWRITEBYTECODE=1 QUERYLIFE_LOG=json
EXPOSE 8001 8002 8003
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8003/ready', timeout=4)"]
ENTRYPOINT ["querylife", "serve", "--profile", "gpu", "--host", "0.0.0.0", "--metrics-host", "0.0.0.0", "--probe-port", "8003"]
