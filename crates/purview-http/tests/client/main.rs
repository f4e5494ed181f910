//! The client's side on real connections: hyper's client, and servers on the loopback that count and notice. Where time counts, it is a
//! manual clock's; nothing here waits for a while to have passed.

mod hedging;
mod retrying;
mod sending;
mod support;
