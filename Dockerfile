# syntax=docker/dockerfile:1
# docker build -t tidemill . && docker run -p 7300:7300 -v tidemill:/data tidemill
FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ libclang1-14 libclang-common-14-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# RocksDB first: its layer stays as long as the lock file does.
COPY Cargo.toml Cargo.lock ./
COPY scripts/rocksdb scripts/rocksdb
RUN mkdir src && touch src/lib.rs src/main.rs && scripts/rocksdb
COPY . .
RUN eval "$(scripts/rocksdb)" && cargo build --release --locked --bin tidemill

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home --home-dir /data --uid 7300 tidemill
COPY --from=build /src/target/release/tidemill /usr/bin/tidemill
USER tidemill
WORKDIR /data
# In a container the port is what is published, so it listens on all addresses; the key goes in as TIDEMILL_API_KEY.
ENV TIDEMILL__SERVER__LISTEN=0.0.0.0:7300 TIDEMILL__STORAGE__PATH=/data/store TIDEMILL__LOG__FORMAT=json
VOLUME /data
EXPOSE 7300
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tidemill"]
CMD ["serve"]
