# The book's environment, for a devcontainer, Binder, or: docker build -t paperwalk . && docker run -it -p 8888:8888 paperwalk
# On x86 the default PyTorch build brings the GPU's libraries. For the small build of a machine without a GPU, pass
#     --build-arg TORCH_INDEX=<the "CPU" index address that pytorch.org/get-started shows>
FROM python:3.11-slim
ARG TORCH_INDEX=""
ARG NB_USER=reader
ARG NB_UID=1000
RUN apt-get update && apt-get install -y --no-install-recommends chromium git make \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home --uid ${NB_UID} ${NB_USER}
USER ${NB_USER}
WORKDIR /home/${NB_USER}/paperwalk
COPY --chown=${NB_UID} . .
RUN make .venv/installed TORCH_INDEX=${TORCH_INDEX}
ENV PATH=/home/${NB_USER}/paperwalk/.venv/bin:${PATH}
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]
