# Everything but vLLM: workers, the embedded engine, and the API too (for one machine). Build from the repository's root:
#   docker build --file deploy/worker.Dockerfile --tag luthier-worker .
FROM python:3.11.13-slim-bookworm
WORKDIR /opt/luthier
RUN pip install --no-cache-dir torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY workers workers
RUN pip install --no-cache-dir '.[workers,wandb]'
RUN useradd --create-home luthier && install --directory --owner luthier /data
USER luthier
ENV LUTHIER_DATA_DIR=/data HF_HOME=/data/huggingface
VOLUME /data
CMD ["luthier-worker", "train"]
