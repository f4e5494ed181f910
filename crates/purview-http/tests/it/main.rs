//! The layer, the extractor and the codec, without a network: services are called, futures and bodies are polled.

mod clients;
mod deadlines;
mod detaching;
mod extracting;
mod late_answers;
mod layering;
mod no_time;
mod requests;
mod support;
mod traveling;
