//! Break glass on a real control-plane node, as kubeadm sets it up: a kubelet, and etcd, API server, controller manager and scheduler as
//! static pods. Each story keeps one node busy, for a node takes a while to come up.

mod killed;
mod place;
mod refused;
mod restored;
