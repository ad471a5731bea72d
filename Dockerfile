# sar-clip's server: CPU by default, `--build-arg DEVICE=cuda` for NVIDIA GPUs. docs/container.md says how to run it.
#
# Of the base, python3 with venv and pip is all that is used, so any image with Python 3.11 or newer will do.
ARG BASE_IMAGE=python:3.13-slim-trixie
ARG DEVICE=cpu

FROM ${BASE_IMAGE} AS base

# ------------------------------------------------------------------------------------------------------------- build
# The project's wheel decides what is installed: its own requirements and those of [serve], with the onnxruntime that
# fits DEVICE. A pip.conf, and the certificate and the constraints that it may name, come as secrets: in no layer.
FROM base AS build
ARG DEVICE
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /source
COPY . .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.pem --mount=type=secret,id=constraints.txt \
    python3 -m venv /tools \
 && python3 -m venv --without-pip /venv \
 && /tools/bin/pip install --quiet packaging \
 && /tools/bin/pip wheel --quiet --no-deps --wheel-dir /wheel . \
 && /tools/bin/python scripts/image/requirements.py --device "${DEVICE}" /wheel/*.whl > /wheel/requirements.txt \
 && cat /wheel/requirements.txt \
 && /tools/bin/pip --python /venv/bin/python install --quiet --no-compile --requirement /wheel/requirements.txt \
 && /tools/bin/pip --python /venv/bin/python install --quiet --no-compile --no-deps /wheel/*.whl
# The shipped bundle lies where another is mounted over it; the package finds it there too.
RUN python3 scripts/image/trim.py packages /venv \
 && package=$(/venv/bin/python -P -c 'import sar_infer; print(sar_infer.__path__[0])') \
 && mv "${package}/_bundles/mini" /bundle \
 && ln -s /bundle "${package}/_bundles/mini" \
 && mkdir /state \
 && /venv/bin/python -c "from PIL import Image; Image.radial_gradient('L').save('/wheel/picture.png')" \
 && /venv/bin/sar-classify --format jsonl /wheel/picture.png \
 && /venv/bin/sar-serve --version

FROM base AS system
COPY scripts/image/trim.py /trim.py
RUN python3 /trim.py system / && rm /trim.py

# ----------------------------------------------------------------------------------------------------------- runtime
# From scratch, so that what was removed from the base takes no room in a layer below.
FROM scratch AS runtime-cpu
# hadolint ignore=DL3067
COPY --from=system / /
COPY --from=build /venv /venv
COPY --from=build /bundle /bundle
COPY --from=build --chown=10001:10001 /state /state
ENV PATH=/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576 \
    SAR_BUNDLE=/bundle \
    SAR_HOST=0.0.0.0 \
    SAR_PORT=8000

FROM runtime-cpu AS runtime-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM runtime-${DEVICE}
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="sar-clip" \
      org.opencontainers.image.description="Open-vocabulary image classification over HTTP, without torch" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
USER 10001:10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['SAR_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["sar-serve"]
