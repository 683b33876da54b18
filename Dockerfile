# The server with everything it needs, as an ordinary user. Its state is one volume:
#
#   docker build -t term-executor .
#   docker run -p 8080:8080 -v term-executor:/var/lib/term-executor term-executor

FROM debian:bookworm-slim AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
# At the path where it is used: a virtual environment can't be moved.
RUN python3 -m venv /opt/term-executor/venv
COPY requirements.lock /tmp/requirements.lock
RUN /opt/term-executor/venv/bin/python -m pip install \
        --disable-pip-version-check --no-cache-dir --require-hashes -r /tmp/requirements.lock


FROM debian:bookworm-slim
# git is the server's; Python with pip and venv, a compiler and curl are for the tasks.
# tini reaps what tasks leave behind, which falls to process 1.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential ca-certificates curl git procps \
        python-is-python3 python3 python3-dev python3-pip python3-venv tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home \
        --home-dir /var/lib/term-executor --shell /usr/sbin/nologin executor \
    && install -d -o executor -g executor -m 0700 /var/lib/term-executor

COPY --from=build /opt/term-executor/venv /opt/term-executor/venv
WORKDIR /opt/term-executor/app
COPY manage.py ./
COPY executor_site ./executor_site
COPY batches ./batches

ENV PATH=/opt/term-executor/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8080 \
    STATE_DIR=/var/lib/term-executor
USER executor
VOLUME /var/lib/term-executor
EXPOSE 8080

HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=4)"]

ENTRYPOINT ["tini", "--", "python", "manage.py", "serve"]
