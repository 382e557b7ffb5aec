# An image with the package, built from its wheel:
#
#   docker build -t recbole_bbqrec .                                                  (CPU)
#   docker build -t recbole_bbqrec:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
#   docker run --rm -v "$PWD":/work recbole_bbqrec run --model=BBQRec --dataset=ml-100k
#
# With a GPU, add `--gpus all` to docker run: the CUDA build of torch brings its own libraries.

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /wheels

FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=plots,tune
RUN pip install --no-cache-dir torch --index-url "$TORCH_INDEX"
COPY --from=wheel /wheels/ /wheels/
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[$EXTRAS]" && rm -r /wheels
# Runs go to saved/, log/ and log_tensorboard/ in /work: a mounted folder must be open to user 1000.
RUN useradd --create-home --uid 1000 user && install --directory --owner=user /work
USER user
WORKDIR /work
ENTRYPOINT ["recbole-bbqrec"]
CMD ["--help"]
