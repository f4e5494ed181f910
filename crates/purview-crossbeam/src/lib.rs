#![doc = include_str!("../README.md")]

mod done_channel;

pub use done_channel::DoneChannel;
