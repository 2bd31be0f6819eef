# The image holds the server and one exported model. It holds no training stack: torch and its
# kin live in the build stage only, where they turn the checkpoint into an ONNX artefact.
#
#   docker build -t embedserve .
#
# torch's default Linux build draws in gigabytes of CUDA libraries, for nothing: export runs on
# the CPU. A package index with CPU-only builds is named at build time:
#
#   docker build --build-arg PIP_EXTRA_INDEX_URL=<URL of a CPU-only torch index> -t embedserve .
#
# constraints.txt pins torch to one release; of its builds pip prefers the one with a local
# version (`+cpu`) as soon as an index offers it.

FROM python:3.11-slim AS build
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY embedserve embedserve
RUN pip install --no-cache-dir --constraint constraints.txt ".[export,bundled]"
# Not the fastest for the machine that builds, as a plain pull would choose, but one that runs on
# every CPU: OpenVINO's artefacts count on bf16 arithmetic where the builder has it.
RUN embedserve pull all-minilm --engine onnxruntime --recipe int8 --home /opt/embedserve

FROM python:3.11-slim
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY embedserve embedserve
RUN pip install --no-cache-dir --constraint constraints.txt .

# A fixed uid, so that volumes keep their owner from one image to the next.
RUN groupadd --gid 10001 embedserve \
 && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home embedserve \
 && mkdir -p /data /documents /indexes \
 && chown 10001:10001 /data
COPY --from=build /opt/embedserve/models /opt/embedserve/models

ENV EMBEDSERVE_HOST=0.0.0.0 \
    EMBEDSERVE_HOME=/data \
    EMBEDSERVE_DEFINITIONS=/indexes \
    EMBEDSERVE_INGEST_ROOTS=/documents \
    PYTHONUNBUFFERED=1

USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 11434
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --start-interval=2s CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('EMBEDSERVE_PORT', '11434')), timeout=8); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]

# Models lie in the home, and a mount on /data hides what the image has there (a bind mount always,
# a named volume from its second start on). So the image keeps its models elsewhere, and a home
# without a models folder gets a copy of them, whole or not at all. What is there already is never
# touched: it may hold models of the user's own.
ENTRYPOINT ["/bin/sh", "-ec", "if [ ! -e \"$EMBEDSERVE_HOME/models\" ]; then rm -rf \"$EMBEDSERVE_HOME/models.new\"; cp -R /opt/embedserve/models \"$EMBEDSERVE_HOME/models.new\"; mv \"$EMBEDSERVE_HOME/models.new\" \"$EMBEDSERVE_HOME/models\"; fi; exec embedserve \"$@\"", "embedserve"]
CMD ["serve"]
