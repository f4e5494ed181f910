//! What a request carries: its id and its user, through layers that need not know of them.
//!
//! Teaches values:
//! - a key is a `static` with a type, so a value of the wrong type does not compile, and nobody can
//!   read or replace a value without the key;
//! - `with_value` changes nothing: it gives a new context, and the nearest value is the one seen;
//! - what belongs to the request (ids, the user) is a value; what a function needs is an argument;
//! - a value is printed only if its key is `visible`.
//!
//! Run it: `cargo run -p purview-examples --bin request_tracing`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::thread;

use purview::{Context, Key};

static REQUEST_ID: Key<u32> = Key::new("request_id").visible();
static USER: Key<User> = Key::new("user");
static SPAN: Key<&str> = Key::new("span").visible();

struct User {
    name: String,
}

fn main() {
    thread::scope(|scope| {
        for (id, token) in [(1, "ann:secret"), (2, "ben:secret"), (3, "nobody")] {
            scope.spawn(move || serve(&Context::background().with_value(&REQUEST_ID, id), token));
        }
    });
}

/// The outermost layer: knows the id.
fn serve(ctx: &Context, token: &str) {
    log(ctx, "begins");
    match authenticate(ctx, token) {
        Some(ctx) => show_orders(&ctx),
        None => log(ctx, "refused"),
    }
    log(ctx, "ends"); // this context is the one it was: without a user
}

/// Adds who asks, for the layers below.
fn authenticate(ctx: &Context, token: &str) -> Option<Context> {
    let name = token.strip_suffix(":secret")?.to_owned();
    Some(ctx.with_value(&USER, User { name }))
}

/// Knows neither id nor user: it hands the context on.
fn show_orders(ctx: &Context) {
    query(&ctx.with_value(&SPAN, "orders"));
    query(&ctx.with_value(&SPAN, "invoices"));
}

/// The innermost layer: reads what the outer ones set.
fn query(ctx: &Context) {
    log(ctx, &format!("queries in {ctx:?}"));
}

/// A line of the log, with whatever is known.
fn log(ctx: &Context, line: &str) {
    let id = ctx.value(&REQUEST_ID).map_or("?".to_owned(), u32::to_string);
    let user = ctx.value(&USER).map_or("-", |user| &user.name);
    let span = ctx.value(&SPAN).copied().unwrap_or("-");
    println!("request={id} user={user} span={span} {line}");
}
