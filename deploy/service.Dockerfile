# The API, without torch. Build from the root of the repository:
#   docker build --file deploy/service.Dockerfile --tag luthier-service .
FROM python:3.11.13-slim-bookworm AS pages
# What the dashboard loads in a browser, by the hashes of its package-lock.json; Node stays behind in this stage.
WORKDIR /opt/luthier
COPY service service
RUN python -m service.dashboard.web.packages

FROM python:3.11.13-slim-bookworm
WORKDIR /opt/luthier
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY workers workers
COPY --from=pages /opt/luthier/service/dashboard/static/vendor service/dashboard/static/vendor
RUN pip install --no-cache-dir .
RUN useradd --create-home luthier && install --directory --owner luthier /data
USER luthier
ENV LUTHIER_DATA_DIR=/data LUTHIER_HOST=0.0.0.0
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
CMD ["luthierd", "serve"]
