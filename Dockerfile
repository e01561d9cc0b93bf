# `nemotron-voice serve` in a container:
#
#     docker build -t nemotron-voice .
#     docker run -p 8080:8080 --stop-timeout 20 nemotron-voice --model demo --no-auth
#     docker run -p 8080:8080 --stop-timeout 20 --gpus all -v models:/home/voice/models \
#         -v "$PWD/keys.txt:/run/secrets/keys:ro" nemotron-voice
#
# TORCH_INDEX is one of PyTorch's wheel indexes (pytorch.org lists them): the CPU one makes a small
# image, one of CUDA fits the GPU's driver. Without it the torch of pip's own index is installed,
# which runs on a CPU too. EXTRAS=cluster adds Ray.

# With a compiler, so that the wheel has the library of kernels (int8 on CPUs).
FROM python:3.12-slim AS wheel
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && pip install --no-cache-dir build
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE NOTICE ./
COPY plugin plugin
COPY nemotron_voice nemotron_voice
RUN python -m build --wheel --outdir /wheel

FROM python:3.12-slim

ARG TORCH_INDEX=""
ARG EXTRAS="server"

RUN useradd --create-home --uid 10001 voice \
    && install --directory --owner=voice --group=voice /home/voice/models
# First what changes least: a change of our own code installs no torch again.
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.6"

COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir "$(echo /wheel/*.whl)[$EXTRAS]"

USER voice
WORKDIR /home/voice
ENV HF_HOME=/home/voice/models NEMOTRON_VOICE_CACHE=/home/voice/models PYTHONUNBUFFERED=1
VOLUME /home/voice/models
EXPOSE 8080
# The first start fetches the model; the port opens when it is warm.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8080/readyz', timeout=3)"]
ENTRYPOINT ["nemotron-voice", "serve", "--host", "0.0.0.0"]
CMD ["--api-key-file", "/run/secrets/keys"]
