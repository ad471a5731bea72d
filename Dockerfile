# sar-clip's server: CPU by default, `--build-arg DEVICE=cuda` for NVIDIA GPUs. docs/operate.md describes how to run it.
# Of the base only python3 with venv and pip is used, so any image with Python 3.11 or newer will do.
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS build
ARG DEVICE=cpu
WORKDIR /source
COPY . .
# The GPU's onnxruntime, which the project asks for on x86-64, serves CPUs too; the plain one has a quarter of its size.
# A pip.conf, and the certificate and the constraints that it may name, come as secrets: in no layer.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.pem --mount=type=secret,id=constraints.txt \
    case "${DEVICE}" in \
      cpu) sed -i 's/"onnxruntime-gpu/"onnxruntime/' pyproject.toml && set -- '.[serve,tokenizers]' ;; \
      cuda) set -- '.[serve,tokenizers,cuda]' onnxruntime-gpu ;; \
      *) echo "DEVICE is cpu or cuda, not ${DEVICE}" >&2; exit 1 ;; \
    esac \
 && python3 -m venv --without-pip /venv \
 && python3 -m pip --python /venv/bin/python install "$@"
# The shipped bundle lies where another is mounted over it; the package finds it there too.
RUN package=$(/venv/bin/python -P -c 'import sar_infer; print(sar_infer.__path__[0])') \
 && mv "${package}/_bundles/mini" /bundle && ln -s /bundle "${package}/_bundles/mini" && mkdir /state

FROM ${BASE_IMAGE}
COPY --from=build /venv /venv
COPY --from=build /bundle /bundle
COPY --from=build --chown=10001:10001 /state /state
# onnxruntime sends usage data to its maker unless told not to. MALLOC_…: glibc gives memory back (docs/operate.md).
ENV PATH=/venv/bin:$PATH HOME=/tmp ORT_DISABLE_TELEMETRY=1 \
    MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576 \
    SAR_BUNDLE=/bundle SAR_HOST=0.0.0.0 SAR_PORT=8000
# Checks the bundle, and leaves bytecode of the standard library, which the base lacks: without it a start takes half a
# second more.
RUN --mount=type=tmpfs,target=/tmp sar-serve --check
LABEL org.opencontainers.image.title="sar-clip" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['SAR_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["sar-serve"]
