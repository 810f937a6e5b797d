# Penstock as a container: kernels are built in the first stage, the second has neither compiler nor sources.
#
#   docker build -t penstock .
#   docker run --read-only -v penstock-state:/var/lib/penstock -v ./clicks.yaml:/etc/penstock.yaml:ro penstock
#
# Paths in the configuration are below /var/lib/penstock, the working directory.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/penstock
WORKDIR /src
COPY pyproject.toml setup.py constraints.txt README.md LICENSE MANIFEST.in ./
COPY penstock penstock
RUN /opt/penstock/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:${PYTHON}-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/penstock --create-home penstock
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1
USER penstock
WORKDIR /var/lib/penstock
VOLUME /var/lib/penstock
EXPOSE 9464
STOPSIGNAL SIGTERM
# The monitor listens on loopback by default, so this works from inside whatever it is published to.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/healthz', timeout=4)"]
ENTRYPOINT ["penstock"]
CMD ["run", "/etc/penstock.yaml", "--log", "json"]
