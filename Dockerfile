# speechemo that predicts, streams, follows recordings and serves, without TensorFlow: some 0.5 GB.
#   docker build -t speechemo .
#   docker run --rm -v "$PWD:/clips" speechemo predict clip.wav
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements-predict.lock .
RUN python -m venv /opt/speechemo \
    && /opt/speechemo/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements-predict.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY speechemo_cli speechemo_cli
RUN /opt/speechemo/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim
COPY --from=build /opt/speechemo /opt/speechemo
RUN useradd --create-home speechemo
USER speechemo
ENV PATH=/opt/speechemo/bin:$PATH
WORKDIR /clips
EXPOSE 8000
ENTRYPOINT ["speechemo"]
CMD ["--help"]
