# Offline jobs: embed, index, describe, filter. They end by themselves: no health check.
#   make image-jobs
#   docker run --read-only --tmpfs /tmp --volume "$PWD/data:/srv/data" querylife-jobs embed ...
ARG BASE=debian:12.11-slim

FROM ${BASE} AS python
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 querylife \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin querylife

FROM python AS installed
COPY requirements/images/jobs.lock /tmp/jobs.lock
RUN python3.11 -m venv /opt/querylife \
    && /opt/querylife/bin/pip install --no-cache-dir --no-deps --requirement /tmp/jobs.lock
COPY . /src
RUN /opt/querylife/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src

FROM python
RUN install --directory --owner 10001 --group 10001 /var/lib/querylife
COPY --from=installed /opt/querylife /opt/querylife
USER 10001:10001
WORKDIR /srv
ENV PATH=/opt/querylife/bin:$PATH PYTHONDONTWRITEBYTECODE=1 QUERYLIFE_LOG=json
STOPSIGNAL SIGTERM
HEALTHCHECK NONE
ENTRYPOINT ["querylife-jobs"]
