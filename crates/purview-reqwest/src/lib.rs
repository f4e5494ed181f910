#![doc = include_str!("../README.md")]

mod ext;
mod service;

pub use ext::{RequestBuilderExt, ResponseFuture};
pub use service::{ClientService, SendFuture};

pub use reqwest;
