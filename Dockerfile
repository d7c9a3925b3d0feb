# One image for machines with and without an NVIDIA GPU.
#   docker build -t marionette .
# PyPI's torch brings CUDA, and runs on a CPU too. A smaller image for CPUs alone takes torch's CPU build: give pip the
# index that pytorch.org names for it.
#   docker build -t marionette:cpu --build-arg TORCH_OPTIONS="--index-url …" .
FROM python:3.12-slim

ARG TORCH_OPTIONS=""

# Nobody needs to be root to make a video; uid 1000 is what Spaces use too.
RUN useradd --create-home --uid 1000 marionette && mkdir /data && chown marionette /data
WORKDIR /app

# The packages first: they change less often than the code.
COPY requirements.txt .
RUN pip install --no-cache-dir ${TORCH_OPTIONS} "$(grep '^torch' requirements.txt)" \
    && pip install --no-cache-dir -r requirements.txt
COPY . .

USER marionette
ENV MARIONETTE_DATA=/data \
    GRADIO_SERVER_NAME=0.0.0.0 \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 7860
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/health', timeout=5)"]
CMD ["python", "app.py"]
