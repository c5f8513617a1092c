# vLLM with Luthier's plugin, on its own image for NVIDIA GPUs. Build from the root of the repository:
#   docker build --file deploy/vllm.Dockerfile --tag luthier-vllm .
# Two environments: vLLM's own with our plugin in it, and the one of the command that starts, drains and restarts it.
FROM vllm/vllm-openai:v0.32.0
WORKDIR /opt/luthier
COPY pyproject.toml README.md LICENSE ./
COPY deploy/vllm/plugin.txt deploy/vllm/plugin.txt
COPY service service
COPY workers workers
RUN pip install --no-cache-dir --requirement deploy/vllm/plugin.txt && pip install --no-cache-dir --no-deps .
RUN python3 -m venv /opt/luthier/venv && /opt/luthier/venv/bin/pip install --no-cache-dir .
ENV PATH=/opt/luthier/venv/bin:$PATH LUTHIER_DATA_DIR=/data HF_HOME=/data/huggingface LUTHIER_VLLM_PYTHON=/usr/bin/python3
# Ends the build, not the first start, where this image's vLLM is for another Python than that.
RUN "$LUTHIER_VLLM_PYTHON" -c "import importlib.metadata as m; print(m.version('vllm'), m.version('luthier'))"
RUN useradd --create-home luthier && install --directory --owner luthier /data
USER luthier
ENV HOME=/data XDG_CACHE_HOME=/data/cache VLLM_CACHE_ROOT=/data/cache/vllm TRITON_CACHE_DIR=/data/cache/triton
VOLUME /data
HEALTHCHECK --start-period=15m CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8001/health', timeout=5)"]
ENTRYPOINT ["luthier-worker", "vllm"]
