# Both programs and nothing else: no shell, no libraries. Build it where it is to run (linux/amd64 or linux/arm64):
#   docker build -t registry.example.com/kubectl-backup:0.1.0 .
# The controller is /kubectl-backup; /etcd-launcher is what an init container of etcd copies from.
FROM docker.io/library/rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# As `make build` links the launcher: against glibc, and with none of it needed where it runs.
RUN cargo rustc --release --locked -p kubectl-backup --bin kubectl-backup -- -Ctarget-feature=+crt-static \
 && cargo rustc --release --locked -p etcd-launcher --bin etcd-launcher -- -Ctarget-feature=+crt-static

FROM scratch
# Whom stores with https are trusted by.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/kubectl-backup /kubectl-backup
COPY --from=build /src/target/release/etcd-launcher /etcd-launcher
USER 65532:65532
ENTRYPOINT ["/kubectl-backup"]
