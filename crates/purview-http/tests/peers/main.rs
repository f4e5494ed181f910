//! Peers that are not ours: curl, Go's client and server, Envoy. Each is a process that a test starts and ends; the last hop is
//! real, and so is its clock. What is not installed is skipped, and said.

mod curl;
mod envoy;
mod go_client;
mod go_server;
mod peer;
mod service;
